# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the inventory share."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.contract import Contract
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import GROUPS, Groups
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Earlier
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import RefusedError

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]
BROKEN = sorted((HERE / "broken").glob("*.yml"))
EXAMPLE = (HERE / "good/example/cluster.yml").read_text(encoding="utf-8")


def expected(path: Path) -> list[str]:
    """Mistakes that the head of a broken file announces, each as ``line: path: problem; remedy``."""
    return re.findall(r"^# expect (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def mistakes(text: str, groups: Groups = GROUPS, earlier: Earlier | None = None) -> list[str]:
    """Mistakes found in a file, written as ``expected`` gives them; none when it loads."""
    try:
        load(text, "cluster.yml", earlier, groups)
    except RefusedError as refused:
        return [f"{mistake.line}: {mistake}" for mistake in refused.report.mistakes]
    return []


def edited(*edits: tuple[str, str], text: str = EXAMPLE) -> str:
    """Change the example; each edit has to find its place."""
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def contract(*edits: tuple[str, str], text: str = EXAMPLE) -> Contract:
    """Load the example with changes."""
    return load(edited(*edits, text=text), "/somewhere/cluster.yml")
