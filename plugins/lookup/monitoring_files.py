# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup: files that roles bring along for those who watch them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_files
short_description: Files that roles bring along for those who watch them
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Gives the path of a file in the directory C(monitoring) of each role that a group switches on. Groups have the names of their roles; those without
    such a file are passed over.
  - Roles of this collection come first. Others are found beside the playbook and in C(roles_path).
options:
  _terms:
    description: Name of the file.
    required: true
  groups:
    description: Names of the groups.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the rules of all groups of this site
  ansible.builtin.debug:
    msg: "{{ query('sovereign.dify.monitoring_files', 'rules.yml', groups=site.members.keys()) }}"
"""

RETURN = r"""
_raw:
  description: Each with C(role) and C(path), by the role's name.
  type: list
  elements: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.sovereign.dify.plugins.plugin_utils.role_directory import role_files


class LookupModule(LookupBase):
    """Finds files."""

    def run(self, terms: Sequence[str], variables: Mapping[str, Any] | None = None, **kwargs: object) -> list[dict[str, str]]:
        """Find the file in each role."""
        self.set_options(var_options=variables, direct=kwargs)  # type: ignore[no-untyped-call]
        groups = [str(group) for group in self.get_option("groups")]  # type: ignore[no-untyped-call]
        return [{"role": role, "path": str(path)} for name in terms for role, path in role_files(groups, f"monitoring/{name}", variables or {})]
