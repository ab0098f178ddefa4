# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup: what the roles of a host can be watched by."""

from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_targets
short_description: What the roles of a host can be watched by
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads C(monitoring/targets.yml) of each role that a group of the host switches on, templates it with that role's own variables as this host has
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
- name: Show what this host can be watched by
  ansible.builtin.debug:
    msg: "{{ lookup('sovereign.dify.monitoring_targets', *node.groups) }}"
"""

RETURN = r"""
_raw:
  description: One dictionary.
  type: list
  elements: dict
  contains:
    jobs: {description: "Each with C(name), C(role), C(endpoints), C(exporter) and C(directory), its files' place.", type: list, elements: dict}
    textfiles: {description: "Programs that print metrics, each with C(name), C(role), C(path), C(arguments), C(every).", type: list, elements: dict}
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import DeclarationError, declared
from ansible_collections.sovereign.dify.plugins.plugin_utils.role_declarations import DeclarationLookup
from ansible_collections.sovereign.dify.plugins.plugin_utils.role_directory import role_files


class LookupModule(DeclarationLookup):
    """Reads declarations."""

    def run(self, terms: Sequence[str], variables: Mapping[str, Any] | None = None, **kwargs: object) -> list[dict[str, Any]]:
        """Read the declarations of all roles.

        Raises:
            AnsibleLookupError: one of them is none, or two declare the same name.
        """
        self.set_options(var_options=variables, direct=kwargs)  # type: ignore[no-untyped-call]
        jobs: list[dict[str, Any]] = []
        textfiles: list[dict[str, Any]] = []
        owners: dict[tuple[str, str], str] = {}
        for role, path in role_files(list(terms), "monitoring/targets.yml", variables or {}):
            try:
                own_jobs, own_textfiles = declared(role, self.declaration(path, variables or {}))
                for named in [*(("job", job.name) for job in own_jobs), *(("text file", one.name) for one in own_textfiles)]:
                    if (owner := owners.setdefault(named, role)) != role:
                        raise DeclarationError(f"{role}: the {' '.join(named)} is also the role {owner}'s: give it another name")
            except DeclarationError as error:
                raise AnsibleLookupError(f"{path}: {error}") from error
            jobs += [dataclasses.asdict(job) | {"directory": str(path.parent)} for job in own_jobs]
            textfiles += [
                {"name": one.name, "role": role, "path": str(path.parent / one.program), "arguments": list(one.arguments), "every": one.every}
                for one in own_textfiles
            ]
        return [{"jobs": jobs, "textfiles": textfiles}]
