# SPDX-License-Identifier: GPL-3.0-or-later
"""How much Dify carries on given hosts, with which settings, and what must be added to carry more. Nothing in this package knows Ansible.

A chat stream keeps a transaction open until it ends, and needs further connections meanwhile. More requests at a time than a process has connections
for therefore wait for each other for ever. So every number is derived from streams: an api process takes no more requests than its SQLAlchemy pool
can serve, and PostgreSQL admits all pools together.

* ``figures`` are the constants, each with its unit and where it comes from,
* ``reading`` turns what a user wrote into the classes of ``settings``, and collects mistakes,
* ``prediction`` says what settings carry, and why they must be refused,
* ``planner`` chooses settings, ``advice`` says what to add or change to reach what is wanted,
* ``report`` puts all of it together; it is the door.
"""
