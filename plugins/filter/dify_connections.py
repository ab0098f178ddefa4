# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: connections to PostgreSQL that the Dify of a site may open."""

from __future__ import annotations

DOCUMENTATION = r"""
name: dify_connections
short_description: Connections to PostgreSQL that the Dify of a site may open
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Adds up the pools of all processes of a site, with what they may open beyond.
positional: members
options:
  _input: {description: 'What each host is given, as C(Host) in C(module_utils/dify_containers.py) has it.', type: dict, required: true}
  members: {description: Hosts of each service., type: dict, required: true}
"""

EXAMPLES = r"""
- name: Refuse more connections than PostgreSQL has
  ansible.builtin.import_role:
    name: sovereign.dify.patroni
    tasks_from: budget
  vars:
    patroni_budget: "{{ __dify_host | sovereign.dify.dify_connections(site.dify.services) }}"
"""

RETURN = r"""
_value: {description: Connections by purpose., type: dict}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.dify_containers import budget
from ansible_collections.sovereign.dify.plugins.module_utils.dify_settings import SettingsError


def dify_connections(host: Mapping[str, Any], members: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    """Add connections up.

    Raises:
        AnsibleFilterError: What the host is given cannot be read.
    """
    try:
        return budget(host, members)
    except SettingsError as error:
        raise AnsibleFilterError(f"Dify cannot be run so:\n{error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"dify_connections": dify_connections}
