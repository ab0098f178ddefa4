# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what Prometheus answered to several questions, as the rows of one table."""

from __future__ import annotations

DOCUMENTATION = r"""
name: prometheus_rows
short_description: Answers of Prometheus as the rows of a table
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Joins vectors, each the answer to a question that is summed by the same label, into one row for each value of the label.
positional: label
options:
  _input:
    description: For each column, the C(result) of an answer of C(/api/v1/query).
    type: dict
    required: true
  label: {description: The label. Its values are the first column of the table. Answers without it make one row., type: str, required: true}
"""

EXAMPLES = r"""
- name: Show the requests and failures of each tier
  ansible.builtin.debug:
    msg: "{{ {'requests': asked.json.data.result, 'failed': failed.json.data.result} | sovereign.dify.prometheus_rows('tier') }}"
"""

RETURN = r"""
_value:
  description:
    - The rows, by the label's values in their order. A number that Prometheus does not give is V(none); others have six digits, or all
      before the point.
  type: list
  elements: dict
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError


def prometheus_rows(answers: Mapping[str, Sequence[Mapping[str, Any]]], label: str) -> list[dict[str, Any]]:
    """Join vectors into rows.

    Args:
        answers: Vectors of Prometheus (``[{"metric": {label: value}, "value": [time, "number"]}]``) by the name of their column.
        label: The label that they are summed by.

    Returns:
        A row for each of its values, with all columns.

    Raises:
        AnsibleFilterError: A vector has more than one number for a value of the label.
    """
    rows: dict[str, dict[str, Any]] = {}
    for column, vector in answers.items():
        for entry in vector:
            of = str(entry["metric"].get(label, ""))
            row = rows.setdefault(of, {label: of, **dict.fromkeys(answers)})
            if row[column] is not None:
                raise AnsibleFilterError(f"prometheus_rows: {column} has more than one number for {label}={of!r}: sum it by ({label})")
            row[column] = _number(entry["value"][1])
    return [rows[of] for of in sorted(rows)]


def _number(text: str) -> float | None:
    number = float(text)
    if not math.isfinite(number):
        return None
    return float(round(number)) if abs(number) >= 1e5 else float(f"{number:.6g}")


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"prometheus_rows": prometheus_rows}
