# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: networks as matches in nftables' language."""

from __future__ import annotations

DOCUMENTATION = r"""
name: firewall_addresses
short_description: Networks as matches in nftables' language
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Gives one match for each address family among the networks, duplicates and overlaps merged; none for an empty list.
positional: side
options:
  _input: {description: Addresses and networks., type: list, elements: str, required: true}
  side: {description: Which address of a packet to match., type: str, choices: [saddr, daddr], required: true}
"""

EXAMPLES = r"""
- name: Show a match for each family
  ansible.builtin.debug:
    msg: "{{ ['198.18.0.0/15', '198.18.1.0/24', '::/0'] | sovereign.dify.firewall_addresses('saddr') }}"  # ip saddr 198.18.0.0/15, meta nfproto ipv6
"""

RETURN = r"""
_value: {description: The matches., type: list, elements: str}
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.rules import RuleError, matches


def firewall_addresses(networks: Sequence[str], side: str) -> list[str]:
    """Write networks as matches.

    Args:
        networks: Addresses and networks, either family.
        side: ``saddr`` or ``daddr``.
    """
    try:
        return matches(networks, side)
    except RuleError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"firewall_addresses": firewall_addresses}
