# SPDX-License-Identifier: GPL-3.0-or-later
"""The model behind the inventory plugin: one file in, the contract out. Nothing in this package knows Ansible.

The way through, in the order in which it is walked:

* ``document`` turns text into YAML nodes that remember their lines,
* ``kinds``, ``sections`` and ``spec`` say which keys exist and read the nodes into frozen dataclasses,
* ``hosts`` gathers the hosts of all sites, ``plan`` derives routes, ports and GPUs,
* ``rules_*`` compare the parts with each other,
* ``contract`` writes down the variables that roles read.

``report`` collects every mistake on the way; ``load`` is the door.
"""
