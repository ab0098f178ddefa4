# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role declares that it can be watched by: ``monitoring/targets.yml`` beside its tasks, checked and put in one form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
OWN_LABELS = frozenset({"instance", "job", "role", "site", "cluster"})
"""Labels that Prometheus gets from the host and the contract."""


class DeclarationError(ValueError):
    """A declaration that cannot be used; the text says where and why."""


@dataclass(frozen=True)
class Endpoint:
    """An address on a host at which metrics are served.

    Attributes:
        name: Name of its path at the host's gate: the job's, with a number where the job has several.
        address: Address that it listens at.
        port: Its port.
        path: Path, with a query where it has one.
        tls: Whether it speaks TLS and wants a certificate.
        server_name: Name in its certificate.
        labels: Labels beside those that every series has.
    """

    name: str
    address: str
    port: int
    path: str
    tls: bool
    server_name: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Exporter:
    """A unit of the distribution that serves metrics of something that has none itself.

    Attributes:
        package: Its package.
        unit: Its unit.
        program: Absolute path of its program.
        user: User that it runs as.
        groups: Further groups of that user.
        arguments: Arguments of the program.
        environment: Variables of its environment; they may hold secrets.
        files: Names of files in the role's directory ``monitoring`` that it reads.
    """

    package: str
    unit: str
    program: str
    user: str = "prometheus"
    groups: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A kind of metrics on a host.

    Attributes:
        name: Its name, which becomes the label ``job``.
        role: Role that declares it.
        endpoints: Where it is served.
        exporter: What serves it, or nothing where a service does so itself.
    """

    name: str
    role: str
    endpoints: tuple[Endpoint, ...]
    exporter: Exporter | None


@dataclass(frozen=True)
class Textfile:
    """A program that prints metrics.

    Attributes:
        name: Name of its file.
        role: Role that declares it.
        program: Name of the program in the role's directory ``monitoring``.
        arguments: Its arguments.
        every: Seconds for which what it printed last is good; 0 if it is run each time.
    """

    name: str
    role: str
    program: str
    arguments: tuple[str, ...]
    every: int


def declared(role: str, document: object) -> tuple[list[Job], list[Textfile]]:
    """Read what a role declares.

    Args:
        role: Name of the role.
        document: Content of its ``monitoring/targets.yml``, templated.

    Returns:
        Its jobs, and its programs.

    Raises:
        DeclarationError: The document is none.
    """
    top = checked_section(document, role, {"jobs", "textfiles"})
    jobs = [_job(role, name, value) for name, value in _named(top, "jobs", role)]
    programs = [_textfile(role, name, value) for name, value in _named(top, "textfiles", role)]
    return jobs, programs


def _job(role: str, name: str, value: object) -> Job:
    where = f"{role}: jobs.{name}"
    section = checked_section(value, where, {"endpoints", "exporter"})
    given = section.get("endpoints", [])
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise DeclarationError(f"{where}.endpoints: give a list")
    endpoints = tuple(
        _endpoint(f"{where}.endpoints[{number}]", name if len(given) == 1 else f"{name}-{number}", one) for number, one in enumerate(given, 1)
    )
    exporter = _exporter(f"{where}.exporter", section["exporter"]) if section.get("exporter") else None
    return Job(name, role, endpoints, exporter)


def _endpoint(where: str, name: str, value: object) -> Endpoint:
    section = checked_section(value, where, {"address", "port", "path", "tls", "server_name", "labels"}, {"port"})
    try:
        port = int(section["port"])
    except (TypeError, ValueError):
        raise DeclarationError(f"{where}.port: {section['port']!r} is no number") from None
    path = str(section.get("path", "/metrics"))
    if not re.fullmatch(r"/[!-~]*", path):
        raise DeclarationError(f"{where}.path: {path!r} is no path: it begins with / and has no blanks")
    labels = {str(label): str(text) for label, text in (section.get("labels") or {}).items()}
    for label in labels:
        if not LABEL.fullmatch(label) or label in OWN_LABELS:
            raise DeclarationError(f"{where}.labels: {label!r} cannot be given; it is set for all, or is no name of a label")
    tls = bool(section.get("tls"))
    if tls and not section.get("server_name"):
        raise DeclarationError(f"{where}.server_name: give the name that the server's certificate bears")
    return Endpoint(name, str(section.get("address", "127.0.0.1")), port, path, tls, str(section.get("server_name", "")), labels)


def _exporter(where: str, value: object) -> Exporter:
    section = checked_section(
        value, where, {"package", "unit", "program", "user", "groups", "arguments", "environment", "files"}, {"package", "unit", "program"}
    )
    return Exporter(
        package=str(section["package"]),
        unit=str(section["unit"]),
        program=str(section["program"]),
        user=str(section.get("user", "prometheus")),
        groups=tuple(str(group) for group in section.get("groups", ())),
        arguments=tuple(str(argument) for argument in section.get("arguments", ())),
        environment={str(name): str(text) for name, text in section.get("environment", {}).items()},
        files=tuple(str(file) for file in section.get("files", ())),
    )


def _textfile(role: str, name: str, value: object) -> Textfile:
    where = f"{role}: textfiles.{name}"
    section = checked_section(value, where, {"program", "arguments", "every"}, {"program"})
    every = section.get("every", 0)
    if not isinstance(every, int) or isinstance(every, bool) or every < 0:
        raise DeclarationError(f"{where}.every: {every!r} is no number of seconds")
    return Textfile(name, role, str(section["program"]), tuple(str(argument) for argument in section.get("arguments", ())), every)


def checked_section(value: object, where: str, known: Set[str], needed: Set[str] = frozenset()) -> Mapping[str, Any]:
    """Take a part of a declaration.

    Args:
        value: What stands there.
        where: Its place, for the text of an error.
        known: Keys that it may have.
        needed: Keys that it must have.

    Raises:
        DeclarationError: It is no mapping, or has other keys.
    """
    if not isinstance(value, Mapping):
        raise DeclarationError(f"{where}: give a mapping of {', '.join(sorted(known))}")
    if unknown := sorted(str(key) for key in set(value) - known):
        raise DeclarationError(f"{where}.{unknown[0]}: unknown; known are {', '.join(sorted(known))}")
    if lacking := sorted(needed - set(value)):
        raise DeclarationError(f"{where}.{lacking[0]}: required")
    return value


def _named(top: Mapping[str, Any], key: str, role: str) -> list[tuple[str, object]]:
    section = top.get(key) or {}
    if not isinstance(section, Mapping):
        raise DeclarationError(f"{role}: {key}: give a mapping by name")
    for name in section:
        if not NAME.fullmatch(str(name)):
            raise DeclarationError(f"{role}: {key}: {name!r} is no name: use lower-case letters, digits and '_', a letter first")
    return [(str(name), section[name]) for name in section]
