# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what the role dify runs in a site, as the filter capacity_plan checks it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: dify_declared
short_description: What the role dify runs in a site, as P(sovereign.dify.capacity_plan#filter) checks it
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Gives processes, connections and pools of all hosts of a site in the form of the O(sovereign.dify.capacity_plan#filter:declared) of that filter.
positional: members, max_connections
options:
  _input: {description: 'What each host is given, as C(Host) in C(module_utils/dify_containers.py) has it.', type: dict, required: true}
  members: {description: Hosts of each service., type: dict, required: true}
  max_connections: {description: Connections that PostgreSQL admits., type: int, required: true}
"""

EXAMPLES = r"""
- name: Refuse what streams would wedge
  ansible.builtin.debug:
    msg: "{{ (hosts | sovereign.dify.capacity_plan(wanted, host | sovereign.dify.dify_declared(site.dify.services, 300))).supports }}"
"""

RETURN = r"""
_value: {description: The settings., type: dict}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.dify_containers import declared
from ansible_collections.sovereign.dify.plugins.module_utils.dify_settings import SettingsError


def dify_declared(host: Mapping[str, Any], members: Mapping[str, Sequence[Any]], max_connections: int) -> dict[str, Any]:
    """Give a site's settings.

    Raises:
        AnsibleFilterError: What the host is given cannot be read.
    """
    try:
        return declared(host, members, max_connections)
    except SettingsError as error:
        raise AnsibleFilterError(f"Dify cannot be run so:\n{error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"dify_declared": dify_declared}
