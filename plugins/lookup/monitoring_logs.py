# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup: what the roles of a host log."""

from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_logs
short_description: What the roles of a host log
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads C(monitoring/logs.yml) of each role that a group of the host switches on, templates it with that role's own variables as this host has
    them, and checks it.
  - Where roles are found is said at P(sovereign.dify.monitoring_files#lookup).
options:
  _terms:
    description: Names of the host's groups.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what this host logs
  ansible.builtin.debug:
    msg: "{{ query('sovereign.dify.monitoring_logs', *node.groups) }}"
"""

RETURN = r"""
_raw:
  description:
    - The sources, each with C(name), C(role), C(service), C(units), C(identifiers), C(files), C(format), C(fields), C(pattern) and C(numbers).
  type: list
  elements: dict
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible_collections.sovereign.dify.plugins.module_utils.log_sources import LogSource, clashes, declared_logs
from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import DeclarationError
from ansible_collections.sovereign.dify.plugins.plugin_utils.role_declarations import DeclarationLookup
from ansible_collections.sovereign.dify.plugins.plugin_utils.role_directory import role_files


class LookupModule(DeclarationLookup):
    """Reads declarations."""

    def run(self, terms: Sequence[str], variables: Mapping[str, Any] | None = None, **kwargs: object) -> list[dict[str, Any]]:
        """Read the declarations of all roles.

        Raises:
            AnsibleLookupError: one of them is none, or two declare the same lines.
        """
        self.set_options(var_options=variables, direct=kwargs)  # type: ignore[no-untyped-call]
        found: list[LogSource] = []
        for role, path in role_files(list(terms), "monitoring/logs.yml", variables or {}):
            try:
                found += declared_logs(role, self.declaration(path, variables or {}))
                if clash := clashes(found):
                    raise DeclarationError(clash)
            except DeclarationError as error:
                raise AnsibleLookupError(f"{path}: {error}") from error
        return [{key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(one).items()} for one in found]
