# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: a role's dashboard, drawn for Grafana."""

from __future__ import annotations

DOCUMENTATION = r"""
name: grafana_dashboard
short_description: A role's dashboard, drawn for Grafana
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Checks what a role declares in C(monitoring/dashboard.yml), and draws it for Grafana 11 and later. Fails with the place of a mistake.
  - The dashboard has the uid C(sovereign-<role>), with C(-) for each C(_) of the role's name, and the tag C(sovereign.dify).
positional: role, roles
options:
  _input: {description: Content of the file., type: dict, required: true}
  role: {description: Name of the role., type: str, required: true}
  roles:
    description: Roles of the site that have a dashboard. What a dashboard shows of other roles is left out where they are not among these.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Write the dashboards of all groups of this site
  ansible.builtin.copy:
    content: "{{ declared | sovereign.dify.grafana_dashboard(item.role, found | map(attribute='role')) | to_nice_json }}"
    dest: /etc/sovereign/grafana/dashboards/{{ item.role }}.json
    mode: "0644"
  loop: "{{ found }}"
  vars:
    found: "{{ query('sovereign.dify.monitoring_files', 'dashboard.yml', groups=site.members.keys()) }}"
    declared: "{{ lookup('ansible.builtin.file', item.path) | from_yaml }}"
"""

RETURN = r"""
_value: {description: 'The dashboard, as a file that Grafana is provisioned with holds it in JSON.', type: dict}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.dashboards import declared, grafana
from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import DeclarationError


def grafana_dashboard(document: Mapping[str, Any], role: str, roles: Sequence[str]) -> dict[str, Any]:
    """Draw a dashboard.

    Args:
        document: What the role declares.
        role: Its name.
        roles: Roles of the site that have a dashboard.
    """
    try:
        return grafana(declared(role, document), roles)
    except DeclarationError as error:
        raise AnsibleFilterError(f"dashboard of {error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"grafana_dashboard": grafana_dashboard}
