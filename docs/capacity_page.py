# SPDX-License-Identifier: GPL-3.0-or-later
"""The generated parts of docs/capacity.md: the figures, and an example as the planner answers it."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.sovereign.dify.plugins.filter.text_table import text_table
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.reading import CapacityError, one_of
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.report import report
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.settings import Settings, Wanted, hosts_of

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "plugins/module_utils/dify_capacity/figures.py"
PAGE = ROOT / "docs/capacity.md"


def page() -> str:
    """Return the page with its generated parts renewed.

    Raises:
        ValueError: the page lacks the markers of a part.
    """
    text = PAGE.read_text(encoding="utf-8")
    given = {name: yaml.safe_load(_block(text, name)) for name in ("given", "stock")}
    answers = {"plan": _answer(given["given"]), "refusal": _answer({**given["given"], "declared": given["stock"]})}
    for name, part in {"figures": _figures(), **{name: f"```text\n{answer}\n```" for name, answer in answers.items()}}.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            msg = f"docs/capacity.md: the markers {begin.strip()} and {end} are missing"
            raise ValueError(msg)
        text = f"{before}{begin}{part}\n{end}{after}"
    return text


def _block(text: str, name: str) -> str:
    """Give the YAML that follows a marker."""
    found = re.search(rf"<!-- {name} -->\n```yaml\n(.*?)```", text, flags=re.S)
    if not found:
        msg = f"docs/capacity.md: the YAML after <!-- {name} --> is missing"
        raise ValueError(msg)
    return found[1]


def _answer(asked: dict[str, Any]) -> str:
    """Give what the planner says, as in a terminal."""
    declared = one_of(Settings, asked["declared"], "declared") if "declared" in asked else None
    try:
        answer = report(hosts_of(asked["hosts"]), one_of(Wanted, asked["wanted"], "wanted"), declared)
    except CapacityError as error:
        return str(error)
    return "\n".join(text_table(answer["table"], ["what", "value", "why"]))


def _figures() -> str:
    """Lay the constants out as a Markdown table: each is a number, followed by its unit, what it is of, and its source."""
    body = ast.parse(FIGURES.read_text(encoding="utf-8")).body
    lines = ["| figure | value | unit | of what, and from where |", "| --- | --- | --- | --- |"]
    for one, after in pairwise(body):
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant) and isinstance(after, ast.Expr):
            (name,) = one.targets
            unit, _, meaning = " ".join(ast.literal_eval(after.value).split()).partition(": ")
            lines.append(f"| `{ast.unparse(name)}` | {ast.literal_eval(one.value):g} | {unit} | {meaning} |")
    return "\n".join(lines)
