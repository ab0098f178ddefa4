# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role declares of its logs: ``monitoring/logs.yml`` beside its tasks, checked and put in one form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import NAME, DeclarationError, checked_section

SERVICE = re.compile(r"[a-z][a-z0-9_-]*")
FORMATS = ("json", "text")
TAKEN = frozenset({"@timestamp", "message", "site", "host", "service", "unit", "cut", "unread", "shipped_by"})
"""Fields that every line has, or that the shipper and the store set."""
MASKS = ("keys", "identity_cards", "payment_cards", "mobiles", "emails")
"""Masks that the shipper's program knows (``BUILT_IN`` there)."""


@dataclass(frozen=True)
class LogSource:
    """Lines of one kind.

    Attributes:
        name: Its name, also of the tag of its files.
        role: Role that declares it.
        service: Name of the service in the store.
        units: Units of systemd whose journal entries these are; a name may hold ``*``.
        identifiers: Identifiers (``SYSLOG_IDENTIFIER``) of such entries, whatever their unit; one may hold ``*``.
        files: Files that hold such lines; the last part of a path may hold ``*``.
        format: ``json`` or ``text``. A line that is no JSON is read as text.
        fields: Of a line of JSON, dotted paths of members by the name of the field that they become.
        pattern: Of a line of text, a regular expression whose named groups become fields.
        numbers: Fields of ``pattern`` that are numbers.
    """

    name: str
    role: str
    service: str
    units: tuple[str, ...]
    identifiers: tuple[str, ...]
    files: tuple[str, ...]
    format: str
    fields: Mapping[str, str]
    pattern: str
    numbers: tuple[str, ...]


def declared_logs(role: str, document: object) -> list[LogSource]:
    """Read what a role declares.

    Args:
        role: Name of the role.
        document: Content of its ``monitoring/logs.yml``, templated.

    Returns:
        Its sources, by their order in the document.

    Raises:
        DeclarationError: The document is none.
    """
    top = checked_section(document, role, {"sources"}, {"sources"})
    sources = top["sources"] or {}
    if not isinstance(sources, Mapping):
        raise DeclarationError(f"{role}: sources: give a mapping by name")
    for name in sources:
        if not NAME.fullmatch(str(name)):
            raise DeclarationError(f"{role}: sources: {name!r} is no name: use lower-case letters, digits and '_', a letter first")
    return [_source(role, str(name), value) for name, value in sources.items()]


def clashes(sources: Sequence[LogSource]) -> str:
    """Tell which two sources claim the same name, unit, identifier or file; nothing where none do."""
    owners: dict[tuple[str, str], LogSource] = {}
    for source in sources:
        claims = [("name", source.name), *(("unit", unit) for unit in source.units), *(("identifier", one) for one in source.identifiers)]
        for claim in [*claims, *(("file", file) for file in source.files)]:
            if (owner := owners.setdefault(claim, source)) is not source:
                return (
                    f"{source.role}: sources.{source.name}: the {' '.join(claim)} is also that of {owner.role}: sources.{owner.name}; a line is one's"
                )
    return ""


def masks_refused(masks: Sequence[object], own: Mapping[str, object]) -> str:
    """Tell what is wrong with names of masks, and with patterns of one's own; nothing where all can be used."""
    for name in masks:
        if name not in MASKS:
            return f"{name!r} is no mask; known are {', '.join(MASKS)}"
    for name, pattern in own.items():
        try:
            found = re.compile(str(pattern))
        except re.error as error:
            return f"the pattern {name} is no regular expression of Python: {error}"
        if found.search(""):
            return f"the pattern {name} matches an empty text, and so every line: have it match at least one character"
    return ""


def _source(role: str, name: str, value: object) -> LogSource:
    where = f"{role}: sources.{name}"
    known = {"service", "units", "identifiers", "files", "format", "fields", "pattern", "numbers"}
    section = checked_section(value, where, known)
    units, identifiers, files, numbers = (_texts(f"{where}.{key}", section.get(key)) for key in ("units", "identifiers", "files", "numbers"))
    if not (units or identifiers or files):
        raise DeclarationError(f"{where}: no lines: give units, identifiers or files")
    for unit in units:
        if not re.fullmatch(r"[A-Za-z0-9:_.\\@*-]+\.[a-z*]+", unit):
            raise DeclarationError(f"{where}.units: {unit!r} is no unit: write its name with its type, as in nginx.service")
    for file in files:
        if not re.fullmatch(r"/(?:[^/\s*\"]+/)*[^/\s\"]+", file):
            raise DeclarationError(f"{where}.files: {file!r} is no path: begin with /, without blanks and quotes, and with * in the last part alone")
    service = str(section.get("service", name))
    if not SERVICE.fullmatch(service):
        raise DeclarationError(f"{where}.service: {service!r} is no name: use lower-case letters, digits, '_' and '-', a letter first")
    form = str(section.get("format", "text"))
    if form not in FORMATS:
        raise DeclarationError(f"{where}.format: {form!r} is none; known are {', '.join(FORMATS)}")
    fields = section.get("fields") or {}
    if not isinstance(fields, Mapping):
        raise DeclarationError(f"{where}.fields: give a mapping of fields to the members of the line that they are")
    if fields and form != "json":
        raise DeclarationError(f"{where}.fields: those are for lines of JSON; give format: json, or a pattern")
    pattern, groups = _pattern(where, section.get("pattern"))
    for field in [*fields, *groups]:
        if not NAME.fullmatch(str(field)) or field in TAKEN:
            raise DeclarationError(f"{where}: the field {field!r} cannot be given: it is set for all lines, or is no name")
    for one in numbers:
        if one not in groups:
            raise DeclarationError(f"{where}.numbers: {one!r} is no group of the pattern")
    return LogSource(name, role, service, units, identifiers, files, form, {str(key): str(path) for key, path in fields.items()}, pattern, numbers)


def _pattern(where: str, value: object) -> tuple[str, tuple[str, ...]]:
    if value is None:
        return "", ()
    try:
        found = re.compile(str(value))
    except re.error as error:
        raise DeclarationError(f"{where}.pattern: no regular expression of Python: {error}") from None
    if not found.groupindex:
        raise DeclarationError(f"{where}.pattern: it has no named group, and so gives no field; write (?P<name>…)")
    return str(value), tuple(found.groupindex)


def _texts(where: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DeclarationError(f"{where}: give a list")
    return tuple(str(one) for one in value)
