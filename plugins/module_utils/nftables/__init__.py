# SPDX-License-Identifier: GPL-3.0-or-later
"""What the firewall needs to know of nftables. Nothing in this package knows Ansible.

* ``rules`` turns declared rules (dictionaries) into a fragment of nftables' language, on the controller,
* ``source`` joins files into one ruleset that replaces a table at a stroke, and leads nft's complaints back to file and line,
* ``kernel`` talks to nft and systemd on the host,
* ``table`` decides: compare, apply, confirm, roll back.
"""
