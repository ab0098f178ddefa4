# SPDX-License-Identifier: GPL-3.0-or-later
"""Sections: mappings with declared keys, read into frozen dataclasses whose field metadata is the declaration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

try:
    import yaml
except ImportError:  # comes with ansible-core; only a bare Python that merely imports this module lacks it
    yaml = None  # type: ignore[assignment]

from ansible_collections.sovereign.dify.plugins.module_utils.cluster import document
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.kinds import UNREADABLE, Kind, Removed, Schema
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import Path, Report, listing, suggest


@dataclasses.dataclass(frozen=True)
class Key:
    """The declaration of one key: what it means and what fits."""

    name: str
    kind: Kind
    meaning: str
    required: bool
    initial: object
    shown: str


def key(kind: Kind, meaning: str, *, required: bool = False, default: object = None, shown: str | None = None) -> Any:  # noqa: ANN401
    """Declare a key as a dataclass field.

    Args:
        kind: what fits.
        meaning: one sentence for the reference.
        required: refuse the file without it.
        default: value when absent.
        shown: the default in words, where it is computed.
    """
    initial = kind.empty if required else default
    # pylint: disable-next=invalid-field-call
    return dataclasses.field(metadata={"kind": kind, "meaning": meaning, "required": required, "initial": initial, "shown": shown})


def keys(cls: type[Any]) -> Mapping[str, Key]:
    """All declared keys of a section, in order."""
    found = {}
    for field in dataclasses.fields(cls):
        data = field.metadata
        if data:
            found[field.name] = Key(field.name, data["kind"], data["meaning"], data["required"], data["initial"], data["shown"] or "")
    return found


@dataclasses.dataclass(frozen=True)
class Section(Kind):
    """A mapping with declared keys, read into a frozen dataclass."""

    cls: type[Any]
    what: str
    removed: Removed = dataclasses.field(default_factory=dict)

    def read(self, node: yaml.Node, at: Path, report: Report) -> object:
        """Read all keys. The result always exists; what is missing in it is marked in the report."""
        known = keys(self.cls)
        given: dict[str, yaml.Node] = {}
        excused: set[str] = set()
        if isinstance(node, yaml.MappingNode):
            for name, child in document.entries(node, at, report):
                if name in known:
                    given[name] = child
                else:
                    excused |= self._unknown(name, known, at, report)
        elif not document.is_null(node):
            self.wrong(node, at, report, f"a mapping ({self.what})")
            report.unread(at)
            excused = set(known)
        values = {name: self._value(known[name], given.get(name), name in excused, at, report) for name in known}
        return self.cls(**values)

    def _unknown(self, name: str, known: Mapping[str, Key], at: Path, report: Report) -> set[str]:
        """Report a key that does not exist; return the key that was meant, which then is not missing as well."""
        path = (*at, name)
        if name in self.removed:
            use, why = self.removed[name]
            report.add(path, f"'{name}' is no key here: {why}", f"use `{use}`" if use else "remove it")
            return {use} if use else set()
        otherwise = f"known keys: {listing(known)}"
        remedy = suggest(name, known, otherwise)
        report.add(path, f"unknown key '{name}'", remedy)
        return set() if remedy == otherwise else {remedy.split("'")[1]}

    def _value(self, declared: Key, node: yaml.Node | None, excused: bool, at: Path, report: Report) -> object:
        path = (*at, declared.name)
        if node is None or (document.is_null(node) and not isinstance(declared.kind, Section)):
            if excused:
                report.unread(path)
            elif declared.required:
                problem = "is missing" if node is None else "has no value"
                report.add(path, problem, f"give `{declared.name}`: {declared.meaning.rstrip('.')}")
                report.unread(path)
            return declared.initial
        value = declared.kind.read(node, path, report)
        if value is UNREADABLE:
            report.unread(path)
            return declared.initial
        return value

    def describe(self) -> str:
        """Name it."""
        return self.what

    def schema(self) -> Schema:
        """Describe all keys."""
        known = keys(self.cls)
        needed = [name for name, declared in known.items() if declared.required]
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: {"description": declared.meaning} | declared.kind.schema() for name, declared in known.items()},
            **({"required": needed} if needed else {}),
        }
