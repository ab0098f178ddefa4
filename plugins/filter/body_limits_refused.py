# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: hops on the way to a model that take smaller bodies than the hop before them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: body_limits_refused
short_description: Hops on the way to a model that take smaller bodies than the hop before them
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Compares the largest body that nginx takes with that of the model gateways of its site.
  - Compares the largest body that each gateway takes with that of the gateways that it asks at other sites.
options:
  _input:
    description: Hosts on the way.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the host., type: str, required: true}
      site: {description: Its site., type: str, required: true}
      entry: {description: Largest body in bytes that its nginx takes; null where it has none., type: int}
      gateway: {description: Largest body in bytes that its model gateway takes; null where it has none., type: int}
      peers: {description: Names of the hosts whose gateways it asks for models of other sites., type: list, elements: str, required: true}
"""

EXAMPLES = r"""
- name: Refuse limits that do not fit together
  ansible.builtin.assert:
    that: hops | sovereign.dify.body_limits_refused | length == 0
"""

RETURN = r"""
_value: {description: A sentence for each pair of hops that does not fit., type: list, elements: str}
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.body_limits import Hop, smaller_hops


def body_limits_refused(hops: list[Hop]) -> list[str]:
    """Write a sentence for each hop that takes less than the one before it.

    Args:
        hops: Hosts on the way.

    Returns:
        Sentences; none if all limits fit together.
    """
    return smaller_hops(hops)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name it."""
        return {"body_limits_refused": body_limits_refused}
