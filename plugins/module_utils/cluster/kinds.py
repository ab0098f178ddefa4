# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of values: each reads a node, describes itself to people, and gives its JSON Schema.

``read`` returns the value, or ``UNREADABLE`` after it has reported why. Containers drop what is unreadable and mark its path, so that rules which
build on it keep quiet.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

try:
    import yaml
except ImportError:  # comes with ansible-core; only a bare Python that merely imports this module lacks it
    yaml = None  # type: ignore[assignment]

from ansible_collections.sovereign.dify.plugins.module_utils.cluster import addresses, document, engine_arguments
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.levels import Level
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import Path, Report, listing, suggest

UNREADABLE = object()
"""Stands for a value whose mistake has been reported."""

Schema = dict[str, Any]
T = TypeVar("T")


class Items(tuple[object, ...]):
    """The readable items of a list, which remember where they stood."""

    positions: tuple[int, ...] = ()

    @classmethod
    def of(cls, found: Mapping[int, object]) -> Items:
        """Make one from items by position."""
        items = cls(found.values())
        items.positions = tuple(found)
        return items


def numbered(items: Iterable[T]) -> Iterator[tuple[int, T]]:
    """Walk the items of a list with their positions in the file."""
    yield from zip(items.positions, items, strict=True) if isinstance(items, Items) else enumerate(items)


class Kind(ABC):
    """What a key may hold."""

    empty: object = None
    """What a required key holds when it is missing or unreadable."""

    @abstractmethod
    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read a node; report at the path and return ``UNREADABLE`` when it does not fit."""

    @abstractmethod
    def describe(self) -> str:
        """Say in a few words what fits, in Markdown."""

    @abstractmethod
    def schema(self) -> Schema:
        """Give the JSON Schema of what fits."""

    def wrong(self, node: yaml.Node, at: Path, report: Report, wanted: str) -> object:
        """Report that a node is of another type."""
        report.add(at, f"expected {wanted}, but YAML reads {document.read_as(node)}", _retype(node, wanted), line=document.line(node))
        return UNREADABLE


def _retype(node: yaml.Node, wanted: str) -> str:
    """Tell how to write what was probably meant."""
    tag = document.tag(node)
    if wanted.startswith("a mapping"):
        return "write its entries as `key: value`, one below the other"
    if wanted.startswith("a list"):
        return f"write [{node.value}]" if isinstance(node, yaml.ScalarNode) and tag != "null" else "write its items as `- item`, one below the other"
    if not isinstance(node, yaml.ScalarNode) or tag == "null":
        return "give a single value"
    if not document.is_core(node):
        return "write the value itself; tagged values may stand only in `vars`"
    if wanted.startswith("text"):
        return f"quote it: '{node.value}'"
    return f"remove the quotes: {node.value}" if tag == "str" and node.value.isdecimal() else "write a whole number in digits"


@dataclasses.dataclass(frozen=True)
class Text(Kind):
    """Text of a given form."""

    what: str
    pattern: str = r"[^\n]+"
    remedy: str = "give some text"
    empty: object = ""

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read a scalar that YAML takes for text."""
        if not isinstance(node, yaml.ScalarNode) or document.tag(node) != "str":
            return self.wrong(node, at, report, f"text ({self.what})")
        if not re.fullmatch(self.pattern, node.value):
            report.add(at, f"'{node.value}' is no {self.what}", self.remedy, line=document.line(node))
            return UNREADABLE
        return node.value

    def describe(self) -> str:
        """Name the form."""
        return self.what

    def schema(self) -> Schema:
        """Give the pattern."""
        return {"type": "string", "pattern": f"^{self.pattern}$"}


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    values: tuple[str, ...]
    what: str = "choice"

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read one of the words."""
        if not isinstance(node, yaml.ScalarNode) or document.tag(node) != "str":
            return self.wrong(node, at, report, f"text, one of {listing(self.values)}")
        if node.value not in self.values:
            report.add(
                at,
                f"unknown {self.what} '{node.value}'",
                suggest(node.value, self.values, f"give one of {listing(self.values)}"),
                document.line(node),
            )
            return UNREADABLE
        return node.value

    def describe(self) -> str:
        """List the words."""
        return " \\| ".join(f"`{value}`" for value in self.values)

    def schema(self) -> Schema:
        """Give the words."""
        return {"enum": list(self.values)}


@dataclasses.dataclass(frozen=True)
class Scale(Choice):
    """A level of the scale public, internal, restricted."""

    values: tuple[str, ...] = tuple(str(level) for level in Level)
    what: str = "level"

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read a level."""
        word = super().read(node, at, report)
        return Level[word.upper()] if isinstance(word, str) else word


@dataclasses.dataclass(frozen=True)
class Whole(Kind):
    """A whole number between two bounds."""

    least: int
    most: int | None = None

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read a decimal number; the other notations of YAML 1.1 surprise people, so they are refused."""
        if not isinstance(node, yaml.ScalarNode) or document.tag(node) != "int":
            return self.wrong(node, at, report, f"a whole number ({self._bounds()})")
        if not re.fullmatch(r"-?(0|[1-9][0-9]*)", node.value):
            number = document.constructed(node, at, report)
            if number is not None:
                report.add(at, f"YAML 1.1 reads {node.value} as {number}", "write a plain decimal number", line=document.line(node))
            return UNREADABLE
        number = int(node.value)
        if number < self.least or (self.most is not None and number > self.most):
            report.add(at, f"{number} is out of range", f"give a number {self._bounds()}", line=document.line(node))
            return UNREADABLE
        return number

    def _bounds(self) -> str:
        return f"of at least {self.least}" if self.most is None else f"from {self.least} to {self.most}"

    def describe(self) -> str:
        """Give the bounds."""
        return f"number {self._bounds()}"

    def schema(self) -> Schema:
        """Give the bounds."""
        return {"type": "integer", "minimum": self.least, **({} if self.most is None else {"maximum": self.most})}


@dataclasses.dataclass(frozen=True)
class _Parsed(Kind):
    """Text that a function turns into something better."""

    what: str
    parse: Callable[[str], object]
    format: str

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read text and parse it."""
        if not isinstance(node, yaml.ScalarNode) or document.tag(node) != "str":
            return self.wrong(node, at, report, f"text ({self.what})")
        try:
            return self.parse(node.value)
        except addresses.UnfitError as unfit:
            report.add(at, unfit.problem, unfit.remedy, line=document.line(node))
            return UNREADABLE

    def describe(self) -> str:
        """Name it."""
        return self.what

    def schema(self) -> Schema:
        """Give the pattern: rough, since the exact check needs arithmetic."""
        return {"type": "string", "pattern": self.format}


def ip_address() -> Kind:
    """One unicast address, v4 or v6."""
    return _Parsed("IPv4 or IPv6 address", addresses.parse_address, r"^[0-9A-Fa-f:.]+$")


def ip_network() -> Kind:
    """One network in CIDR notation, v4 or v6."""
    return _Parsed("network (CIDR)", addresses.parse_network, r"^[0-9A-Fa-f:.]+/[0-9]{1,3}$")


@dataclasses.dataclass(frozen=True)
class ListOf(Kind):
    """A list without repetitions."""

    item: Kind
    least: int = 0
    empty: object = ()

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read every item; unreadable ones are left out."""
        if not isinstance(node, yaml.SequenceNode):
            return self.wrong(node, at, report, f"a list of {self.item.describe()}")
        if len(node.value) < self.least:
            report.add(at, "the list is empty", f"give at least {self.least}", line=document.line(node))
            return UNREADABLE
        values: dict[int, object] = {}
        for position, child in enumerate(node.value):
            path = (*at, position)
            report.place(path, document.line(child))
            value = self.item.read(child, path, report)
            if value is UNREADABLE:
                report.unread(path)
            elif value in values.values():
                report.add(path, f"'{value}' is listed twice", "remove one of the two", line=document.line(child))
            else:
                values[position] = value
        return Items.of(values)

    def describe(self) -> str:
        """Describe the items."""
        return f"list of {self.item.describe()}"

    def schema(self) -> Schema:
        """Describe the items."""
        return {"type": "array", "items": self.item.schema(), "uniqueItems": True, **({"minItems": self.least} if self.least else {})}


@dataclasses.dataclass(frozen=True)
class MapOf(Kind):
    """A mapping from names of one form to values of one kind."""

    name: Text
    value: Kind
    least: int = 0
    empty: object = dataclasses.field(default_factory=dict)

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read every entry; a misnamed one is kept, so that references to it are not mistakes too."""
        if not isinstance(node, yaml.MappingNode):
            return self.wrong(node, at, report, f"a mapping (one entry for each {self.name.what})")
        if len(node.value) < self.least:
            report.add(at, "the mapping is empty", f"give at least {self.least} {self.name.what}", line=document.line(node))
            return UNREADABLE
        values = {}
        for name, child in document.entries(node, at, report):
            path = (*at, name)
            if not re.fullmatch(self.name.pattern, name):
                report.add(path, f"'{name}' is no {self.name.what}", self.name.remedy)
            value = self.value.read(child, path, report)
            if value is UNREADABLE:
                report.unread(path)
            else:
                values[name] = value
        return values

    def describe(self) -> str:
        """Describe names and values."""
        return f"mapping: {self.name.what} → {self.value.describe()}"

    def schema(self) -> Schema:
        """Describe names and values."""
        bound = {"minProperties": self.least} if self.least else {}
        names = {"pattern": f"^{self.name.pattern}$"}
        return {"type": "object", "propertyNames": names, "additionalProperties": self.value.schema(), **bound}


Removed: TypeAlias = "Mapping[str, tuple[str | None, str]]"
"""Names that people try: to the key that replaces it (if one does), and why."""


@dataclasses.dataclass(frozen=True)
class Free(Kind):
    """A mapping whose values are not ours to judge, but for names that would work against us."""

    what: str
    removed: Removed = dataclasses.field(default_factory=dict)
    empty: object = dataclasses.field(default_factory=dict)

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read a mapping as plain data."""
        if not isinstance(node, yaml.MappingNode):
            return self.wrong(node, at, report, f"a mapping ({self.what})")
        values = {name: document.plain(value, (*at, name), report) for name, value in document.entries(node, at, report)}
        for name in values:
            use, why = self.removed.get(name.lstrip("-").replace("-", "_"), (None, ""))
            if why:
                report.add((*at, name), f"'{name}' cannot be given here: {why}", f"give `{use}` beside `{at[-1]}`" if use else "remove it")
        return values

    def describe(self) -> str:
        """Name it."""
        return f"mapping of {self.what}"

    def schema(self) -> Schema:
        """Allow any object without the refused names."""
        return {"type": "object", **({"propertyNames": {"not": {"enum": sorted(self.removed)}}} if self.removed else {})}


class EngineArguments(Kind):
    """A mapping of arguments of ``vllm serve``: those that are allowed, and no others."""

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read a mapping as plain data."""
        if not isinstance(node, yaml.MappingNode):
            return self.wrong(node, at, report, "a mapping (arguments of `vllm serve`)")
        values = {name: document.plain(value, (*at, name), report) for name, value in document.entries(node, at, report)}
        for fault in engine_arguments.faults(values):
            report.add((*at, fault.name), f"'{fault.name}' cannot be given here: {fault.reason}", fault.remedy)
        return values

    def describe(self) -> str:
        """Name it."""
        return "mapping of arguments of `vllm serve`, [those allowed](#arguments-of-vllm-serve)"

    def schema(self) -> Schema:
        """Allow the names that are allowed, with dashes or underscores."""
        names = "|".join(sorted(engine_arguments.ALLOWED)).replace("-", "[-_]")
        return {"type": "object", "propertyNames": {"pattern": f"^(no[-_])?({names})$"}}
