# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of variables in each role's README, from its argument specification and its defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- variables -->", "<!-- /variables -->"
LONGEST_DEFAULT = 60
"""Characters of a default that still read well in a table."""


def readmes() -> Iterator[tuple[str, Callable[[], str]]]:
    """Give each role's README by its path from the root, with a function that returns its text as it should be."""
    for spec in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        role = spec.parent.parent
        yield str((role / "README.md").relative_to(ROOT)), partial(readme, role)


def readme(role: Path) -> str:
    """Return a role's README with its table of variables renewed.

    Raises:
        ValueError: the README lacks the markers between which the table belongs.
    """
    text = (role / "README.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        msg = f"{role.name}/README.md: the markers {BEGIN} and {END} are missing"
        raise ValueError(msg)
    return f"{before}{BEGIN}\n{table(role)}\n{END}{after}"


def table(role: Path) -> str:
    """Lay the options of a role out as a Markdown table."""
    options: dict[str, Any] = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults: dict[str, Any] = yaml.safe_load((role / "defaults/main.yml").read_text())
    lines = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {_type(option)} | {_default(defaults.get(name))} | {_description(option)} |" for name, option in options.items()]
    return "\n".join(lines)


def _type(option: dict[str, Any]) -> str:
    return f"list of {option['elements']}" if "elements" in option else str(option["type"])


def _default(value: Any) -> str:  # noqa: ANN401 - any YAML value
    if isinstance(value, str):
        text = " ".join(value.split()) if value else '""'
    else:
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
    if len(text) > LONGEST_DEFAULT:
        return "see [defaults](defaults/main.yml)"
    return f"`{_cell(text)}`"


def _description(option: dict[str, Any]) -> str:
    sentences = option["description"]
    text = " ".join(sentences) if isinstance(sentences, list) else str(sentences)
    if "choices" in option:
        text += f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}."
    # Ansible's own markup: C() code, O() option, V() value, E() environment, I() and B() emphasis.
    return _cell(re.sub(r"\b[COVE]\((.*?)\)", r"`\1`", re.sub(r"\b[IB]\((.*?)\)", r"*\1*", text)))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
