# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the rules that a role declares, in nftables' language."""

from __future__ import annotations

DOCUMENTATION = r"""
name: firewall_fragment
short_description: Declared firewall rules in nftables' language
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Turns rules into a part of the firewall's table, to be written to a file of its own.
  - Fails with every mistake at once, before anything is sent to a host.
positional: owner, table
options:
  _input:
    description:
      - The rules, as dictionaries with C(chain) (V(input), V(output) or V(loopback)), C(protocol), C(ports), C(peers), C(interface), C(at), C(users)
        and C(comment).
      - Without C(peers) a rule holds for any address; with an empty list for none. C(from) and C(to) are short for a chain with peers.
      - C(at) says where packets of an input rule may come in - V(lan) (neither the VPN nor the WAN; the default), V(wan) (the LAN and the WAN)
        or V(any).
      - A rule of the V(loopback) has C(users), the only users of the host, beside root, that may connect to its ports at loopback addresses.
      - C(icmp) lets echo requests through; answers and errors always pass.
    type: list
    elements: dict
    required: true
  owner: {description: Name of the role that declares them., type: str, required: true}
  table: {description: Family and name of the table., type: str, default: inet sovereign}
"""

EXAMPLES = r"""
- name: Show a fragment
  ansible.builtin.debug:
    msg: "{{ [{'chain': 'input', 'protocol': 'tcp', 'ports': [443], 'peers': ['198.18.0.0/15']}] | sovereign.dify.firewall_fragment('nginx') }}"
"""

RETURN = r"""
_value: {description: A file for C(nft --file)., type: str}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.rules import RuleError, fragment


def firewall_fragment(declared: Sequence[Mapping[str, Any]], owner: str, table: str = "inet sovereign") -> str:
    """Write declared rules as a fragment.

    Args:
        declared: The rules.
        owner: Name of the role.
        table: Family and name of the table.
    """
    try:
        return fragment(declared, owner, table)
    except RuleError as error:
        raise AnsibleFilterError(f"firewall rules of {owner}: {error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"firewall_fragment": firewall_fragment}
