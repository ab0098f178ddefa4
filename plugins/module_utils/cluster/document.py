# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML text into nodes. Nodes keep their line and their tag, so a mistake can be shown where it stands and as YAML understood it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

try:
    import yaml
except ImportError:  # comes with ansible-core; only a bare Python that merely imports this module lacks it
    yaml = None  # type: ignore[assignment]

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import Path, Report

# libyaml's parser reads a 500-host file about ten times faster; the nodes are the same.
_LOADER: Any = getattr(yaml, "CSafeLoader", None) or getattr(yaml, "SafeLoader", None)

_CORE = "tag:yaml.org,2002:"
_READ_AS = {
    "str": "text",
    "int": "a number",
    "float": "a decimal number",
    "bool": "a boolean",
    "null": "nothing",
    "timestamp": "a date",
    "binary": "binary data",
    "map": "a mapping",
    "seq": "a list",
}

# What the two parsers of PyYAML say (Python's, libyaml's), what that means, and what has nearly always happened.
_SYNTAX = (
    ("mapping values are not allowed", "a ': ' where no key can be", "check the indentation of this line, or quote a value that holds ': '"),
    ("could not find expected ':'", "a line that is neither key nor value", "put ':' and a space after the key"),
    ("did not find expected key", "a line that does not belong to the lines around it", "align it with its siblings, or close its quotes"),
    ("did not find expected '-'", "a line that does not belong to the lines around it", "align it with its siblings, or close its quotes"),
    ("expected <block end>", "a line that does not belong to the lines around it", "align it with its siblings, or close its quotes"),
    ("expected ',' or", "a bracket that is not closed", "close it, or add the missing comma, in this line or before"),
    ("node content", "a bracket that is not closed", "close it, or add the missing comma, in this line or before"),
    ("characters are not allowed", "a control character", "remove it; an editor may not show it"),
    ("undefined alias", "an alias (*) without its anchor (&)", "define the anchor before its use"),
    ("another document", "a second document", "keep one document in the file: remove the second '---'"),
    ("unexpected end of stream", "a quote that is not closed", "close it"),
    ("cannot start any token", "a character that cannot start a value", "quote the value"),
)
_TAB = ("a tab", "indent with spaces")


def tag(node: yaml.Node) -> str:
    """Short name of a node's YAML type; tags beyond the core ones stay as written, such as ``!vault``."""
    return str(node.tag).removeprefix(_CORE)


def line(node: yaml.Node) -> int:
    """Line of a node in the file, from 1."""
    return int(node.start_mark.line) + 1


def is_core(node: yaml.Node) -> bool:
    """Tell whether a node has a type of YAML itself, and no tag such as ``!vault``."""
    return tag(node) in _READ_AS


def is_null(node: yaml.Node) -> bool:
    """Tell whether a key was left without a value."""
    return tag(node) == "null"


def read_as(node: yaml.Node) -> str:
    """Say how YAML understood a node, for messages."""
    short = tag(node)
    meaning = _READ_AS.get(short, f"a value tagged {short}")
    return f"{meaning} ({node.value})" if isinstance(node, yaml.ScalarNode) and short not in ("null", "binary") else meaning


def compose(text: str, report: Report) -> yaml.Node | None:
    """Parse the file; a syntax error becomes a mistake with its line."""
    try:
        node: yaml.Node | None = yaml.compose(text.encode(), Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
        number = int(mark.line) if mark else 0
        found = next((explained for sign, *explained in _SYNTAX if sign in problem), [problem, "quote the value, or check the lines above"])
        if mark and "\t" in text.splitlines()[min(number, text.count("\n") - 1)].partition("#")[0]:
            found = list(_TAB)
        report.add((), f"not valid YAML: {found[0]}", found[1], line=number + 1)
        return None
    if node is None or is_null(node):
        report.add((), "the file is empty", "start with the example in docs/cluster.md")
        return None
    return node


def entries(node: yaml.Node, at: Path, report: Report, around: tuple[yaml.Node, ...] = ()) -> Iterator[tuple[str, yaml.Node]]:
    """Walk the keys of a mapping, merge keys (``<<``) resolved.

    Reports keys that are given twice and keys that YAML does not read as text. What a merge brings is overridden by what stands in the mapping.
    """
    own: dict[str, int] = {}
    found: dict[str, yaml.Node] = {}
    merged: list[yaml.Node] = []
    for key, value in node.value:
        if tag(key) == "merge":
            merged.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
            continue
        if not isinstance(key, yaml.ScalarNode) or tag(key) != "str":
            report.add(at, f"YAML reads a key as {read_as(key)}", "quote the key", line=line(key))
            report.unread(at)
            continue
        name = str(key.value)
        if name in own:
            report.add((*at, name), f"given twice, first on line {own[name]}", "keep one of the two", line=line(key))
            continue
        own[name] = line(key)
        found[name] = value
    for other in merged:
        if not isinstance(other, yaml.MappingNode) or other in (node, *around):
            report.add(at, "'<<' merges something that is no other mapping", "let it name the anchor of a mapping", line=line(other))
            continue
        for name, value in entries(other, at, report, (node, *around)):
            found.setdefault(name, value)
    for name, start in own.items():
        report.place((*at, name), start)
    yield from found.items()


def plain(node: yaml.Node, at: Path, report: Report, around: tuple[yaml.Node, ...] = ()) -> object:
    """Turn a free value into Python data, for the parts of the file that have no declared keys."""
    if node in around:
        report.add(at, "an alias (*) stands inside its own anchor (&)", "write the value out", line=line(node))
        return None
    inside = (node, *around)
    if isinstance(node, yaml.MappingNode):
        return {name: plain(value, (*at, name), report, inside) for name, value in entries(node, at, report)}
    if isinstance(node, yaml.SequenceNode):
        return [plain(value, (*at, position), report, inside) for position, value in enumerate(node.value)]
    if not is_core(node):
        # !vault and !unsafe: Ansible's own loader reads these; here only the text is of interest.
        return node.value
    return constructed(node, at, report)


def constructed(node: yaml.Node, at: Path, report: Report) -> object:
    """Give the value that YAML gives a scalar."""
    try:
        value: object = yaml.SafeLoader("").construct_object(node)
    except (ValueError, yaml.YAMLError):
        report.add(at, f"YAML takes '{node.value}' for {_READ_AS[tag(node)]}, and cannot read it", "quote the value", line=line(node))
        return None
    return value
