# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: which arguments of ``vllm serve`` may not be given, and why."""

from __future__ import annotations

DOCUMENTATION = r"""
name: engine_arguments_refused
short_description: Arguments of vllm serve that are refused
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Judges arguments by the list of those that change only speed, memory, parsing or sampling. The inventory plugin judges a
    model's C(extra_args) by the same list, see C(docs/cluster.md).
options:
  _input: {description: 'Arguments by name, with dashes or underscores.', type: dict, required: true}
"""

EXAMPLES = r"""
- name: Refuse what could load code
  ansible.builtin.assert:
    that: vllm_extra_args | sovereign.dify.engine_arguments_refused | length == 0
"""

RETURN = r"""
_value: {description: A sentence for each argument that is refused., type: list, elements: str}
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.engine_arguments import faults


def engine_arguments_refused(given: Mapping[str, Any]) -> list[str]:
    """Write a sentence for each argument that is refused.

    Args:
        given: Arguments by name, with dashes or underscores.

    Returns:
        Sentences; none if all arguments are allowed.
    """
    return [f"The extra argument {fault.name} is refused: {fault.reason}; {fault.remedy}." for fault in faults(given)]


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name it."""
        return {"engine_arguments_refused": engine_arguments_refused}
