# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of variables in each role's README, from its argument specification and its defaults, and what the role reads of the contract."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, nodes

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- variables -->", "<!-- /variables -->"
LONGEST_DEFAULT = 60
"""Characters of a default that still read well in a table."""
CONTRACT = ("cluster", "site", "node")
"""The variables that the inventory plugin sets."""
EXPRESSIONS = ("when", "that", "until", "failed_when", "changed_when")
"""Keys of a task whose values are templates without braces around them."""
LOOKUP_OF_SECRETS = "sovereign.dify.secret"
TEMPLATES = Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"], autoescape=False)  # noqa: S701 - it renders nothing


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
    return f"{before}{BEGIN}\n{table(role)}\n{alone(role)}{END}{after}"


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


def alone(role: Path) -> str:
    """Say what whoever has no inventory of this collection gives instead; nothing if the role reads nothing of it.

    The look-up ``needed_alone`` reads this sentence where a role is run so.
    """
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    instead = [f"`{name}`" for name, value in defaults.items() if _read(value)]
    read: set[str] = set()
    for directory in ("vars", "tasks", "handlers"):
        for path in (role / directory).rglob("*.yml"):
            read |= _read(yaml.safe_load(path.read_text()))
    for path in (role / "templates").rglob("*.j2"):
        read |= _of_template(path.read_text())
    # What is read as a whole is read with all that is in it.
    whole = [f"`{path}`" for path in sorted(read) if not any(path.startswith(f"{other}.") for other in read)]
    parts = []
    if instead:
        parts.append(f"{_listed(instead)}, whose defaults read what it sets")
    if whole:
        parts.append(f"{_listed(whole)}, which the role reads itself")
    return f"\nWithout the inventory plugin, give {'; and '.join(parts)}.\n" if parts else ""


def _listed(items: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def _read(value: Any, expression: bool = False) -> set[str]:  # noqa: ANN401 - any YAML value
    """Give what templates in a YAML value read of the contract, such as ``site.members.redis``."""
    if isinstance(value, dict):
        return set().union(*(_read(item, key in EXPRESSIONS) for key, item in value.items()))
    if isinstance(value, list):
        return set().union(*(_read(item, expression) for item in value))
    if not isinstance(value, str):
        return set()
    return _of_template(f"{{{{ {value} }}}}" if expression else value)


def _of_template(text: str) -> set[str]:
    template = TEMPLATES.parse(text)
    # A loop's own variable may have such a name.
    own = {name.name for name in template.find_all(nodes.Name) if name.ctx != "load"}
    return set(_paths(template, set(CONTRACT) - own))


def _paths(node: nodes.Node, names: set[str]) -> Iterator[str]:
    """Give the longest paths from one of the names; none that may be missing."""
    if isinstance(node, nodes.Filter) and node.name in ("default", "d"):
        for argument in node.args:
            yield from _paths(argument, names)
        if not isinstance(node.node, nodes.Node) or _path(node.node, names):
            return
    if isinstance(node, nodes.Test) and node.name in ("defined", "undefined"):
        return
    # Where secrets are kept, if the look-up is not told.
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in ("lookup", "query", "q"):
        first = node.args[0] if node.args else None
        if isinstance(first, nodes.Const) and first.value == LOOKUP_OF_SECRETS and "state_dir" not in {argument.key for argument in node.kwargs}:
            yield "cluster.state_dir"
    # A method of what is read, such as items().
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and (path := _path(node.node.node, names)):
        yield path
        for argument in node.args:
            yield from _paths(argument, names)
        return
    if path := _path(node, names):
        yield path
        return
    for child in node.iter_child_nodes():
        yield from _paths(child, names)


def _path(node: nodes.Node, names: set[str]) -> str:
    """Give a chain of attributes as a path; nothing if it is none."""
    if isinstance(node, nodes.Name):
        return node.name if node.name in names else ""
    if isinstance(node, nodes.Getattr):
        before = _path(node.node, names)
        return before and f"{before}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        before = _path(node.node, names)
        return before and f"{before}.{node.arg.value}"
    return ""
