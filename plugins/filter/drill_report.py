# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the runs of a drill as a report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: drill_report
short_description: The runs of a drill as a report
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Sums up what several runs of a drill gave.
positional: service, fault, limit
options:
  _input: {description: 'The runs, as ledger_load.py reports them, each with C(host).', type: list, elements: dict, required: true}
  service: {description: Service that was loaded., type: str, required: true}
  fault: {description: What befell its leader., type: str, required: true}
  limit: {description: Median recovery time in seconds that is still good enough; 0 means that there is none., type: float, default: 0.0}
"""

EXAMPLES = r"""
- name: Show the report
  ansible.builtin.debug:
    msg: "{{ (drill_runs | sovereign.dify.drill_report('redis', 'kill', 8)).table }}"
"""

RETURN = r"""
_value:
  description: C(report), for machines; C(table), the rows of a table; C(chart), an SVG document.
  type: dict
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.drill_report import chart, rows, summary


def drill_report(runs: Sequence[dict[str, Any]], service: str, fault: str, limit: float = 0.0) -> dict[str, Any]:
    """Sum runs up; see the module ``drill_report``."""
    report = summary(runs, service, fault, float(limit))
    return {"report": report, "table": rows(report), "chart": chart(report)}


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Give the filters of this file by name."""
        return {"drill_report": drill_report}
