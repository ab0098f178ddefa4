# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: a role's dashboard, for the status page."""

from __future__ import annotations

DOCUMENTATION = r"""
name: page_dashboard
short_description: A role's dashboard, as the status page draws it
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Checks what a role declares in C(monitoring/dashboard.yml), and gives it in one form. Fails with the place of a mistake.
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
- name: Show what the page draws of a role
  ansible.builtin.debug:
    msg: "{{ lookup('ansible.builtin.file', path) | from_yaml | sovereign.dify.page_dashboard('redis', ['redis', 'baseline']) }}"
"""

RETURN = r"""
_value: {description: 'C(role), C(title), C(description), C(variables) and C(rows).', type: dict}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.dashboards import declared, page
from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import DeclarationError


def page_dashboard(document: Mapping[str, Any], role: str, roles: Sequence[str]) -> dict[str, Any]:
    """Give a dashboard in the page's form.

    Args:
        document: What the role declares.
        role: Its name.
        roles: Roles of the site that have a dashboard.
    """
    try:
        return page(declared(role, document), roles)
    except DeclarationError as error:
        raise AnsibleFilterError(f"dashboard of {error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"page_dashboard": page_dashboard}
