# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: rows of a report as lines that a person can read in a terminal."""

from __future__ import annotations

DOCUMENTATION = r"""
name: text_table
short_description: Dictionaries as the lines of a table
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Lays a list of dictionaries out as lines of equal width, one column for each wanted key, the key as its heading.
positional: columns
options:
  _input: {description: The rows., type: list, elements: dict, required: true}
  columns: {description: Keys to show in order., type: list, elements: str, required: true}
"""

EXAMPLES = r"""
- name: Show what was probed
  ansible.builtin.debug:
    msg: "{{ outcomes | sovereign.dify.text_table(['name', 'status', 'ok']) }}"
"""

RETURN = r"""
_value: {description: 'The lines, heading first.', type: list, elements: str}
"""

from collections.abc import Callable, Sequence
from typing import Any


def text_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    """Lay rows out as lines.

    Args:
        rows: The rows; a key that a row lacks is shown empty.
        columns: Keys to show, in order.

    Returns:
        ``len(rows) + 1`` lines, the heading first; numbers are right-aligned.
    """
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max([len(column), *(len(line[index]) for line in cells)]) for index, column in enumerate(columns)]
    numeric = [bool(rows) and all(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    lines = [list(columns), *cells]
    return ["  ".join(cell.rjust(w) if n else cell.ljust(w) for cell, w, n in zip(line, widths, numeric, strict=True)).rstrip() for line in lines]


def _cell(value: Any) -> str:  # noqa: ANN401 - a cell may hold anything
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return str(value)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"text_table": text_table}
