# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what a user wrote into dataclasses whose fields say what they take: ``field(metadata=whole(1))``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import listing, suggest

T = TypeVar("T")
Mistakes = list[str]
Check = Callable[[object, str, Mistakes], object]
"""Reads a value (first) that stands somewhere (second), and adds to the mistakes what is wrong with it."""
Metadata = dict[str, Check]


class CapacityError(Exception):
    """Numbers that do not fit together; the text says of each where it stands, what is wrong, and what would be right."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        """Keep the mistakes, one a line."""
        self.mistakes = list(mistakes)
        super().__init__("\n".join(self.mistakes))


def _plain(fits: Callable[[Any], bool], problem: str, remedy: str) -> Metadata:
    """Take any value that fits."""

    def check(value: object, where: str, mistakes: Mistakes) -> object:
        if not fits(value):
            mistakes.append(f"{where}: {value!r} is {problem}; {remedy}")
        return value

    return {"check": check}


def whole(minimum: int, optional: bool = False) -> Metadata:
    """Take a whole number, or None where it is optional."""

    def fits(value: Any) -> bool:  # noqa: ANN401 - whatever a user wrote
        return (optional and value is None) or (isinstance(value, int) and not isinstance(value, bool) and value >= minimum)

    return _plain(fits, f"no whole number of at least {minimum}", "give one, without quotes")


def number(minimum: float, above: bool = False) -> Metadata:
    """Take a number that is at least, or above, another."""

    def fits(value: Any) -> bool:  # noqa: ANN401 - whatever a user wrote
        real = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return real and (value > minimum if above else value >= minimum)

    return _plain(fits, f"no number {'above' if above else 'of at least'} {minimum:g}", "give one, without quotes")


def flag() -> Metadata:
    """Take true or false."""
    return _plain(lambda value: isinstance(value, bool), "neither true nor false", "give one of them, without quotes")


def name() -> Metadata:
    """Take some text."""
    return _plain(lambda value: isinstance(value, str) and bool(value), "no name", "give some text")


def choice(*known: str) -> Metadata:
    """Take one of some words."""
    return _plain(lambda value: value in known, "unknown", f"give {' or '.join(known)}")


def words(*known: str) -> Metadata:
    """Take a list of words: one or more of those that are known, if any are."""

    def check(value: object, where: str, mistakes: Mistakes) -> object:
        if isinstance(value, str) or not isinstance(value, Sequence) or (known and not value):
            mistakes.append(f"{where}: {value!r} is no list of names; give a list{' of one or more of ' + listing(known) if known else ''}")
            return ()
        unknown = [word for word in value if known and word not in known]
        mistakes.extend(f"{where}: unknown {word!r}; {suggest(str(word), known, 'known: ' + listing(known))}" for word in unknown)
        return tuple(value)

    return {"check": check}


def parts(of: Metadata) -> Metadata:
    """Take a mapping whose values are all of one kind."""

    def check(value: object, where: str, mistakes: Mistakes) -> object:
        if not isinstance(value, Mapping):
            mistakes.append(f"{where}: {value!r} is no mapping; give one by name")
            return {}
        return {str(key): of["check"](one, f"{where}.{key}", mistakes) for key, one in value.items()}

    return {"check": check}


def part(kind: type[Any], optional: bool = False) -> Metadata:
    """Take what a class is read from, or None where it is optional."""

    def check(value: object, where: str, mistakes: Mistakes) -> object:
        return None if optional and value is None else read(kind, value, where, mistakes)

    return {"check": check}


def read(kind: type[T], data: object, where: str, mistakes: Mistakes) -> T | None:
    """Read a dataclass from a mapping.

    Args:
        kind: The class.
        data: What a user wrote.
        where: Path to it, for messages.
        mistakes: Filled with what is wrong.

    Returns:
        An object of the class; None if something is wrong with it.
    """
    known: dict[str, Field[Any]] = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping):
        mistakes.append(f"{where}: {data!r} is no mapping; give one of {listing(known)}")
        return None
    before = len(mistakes)
    mistakes.extend(f"{where}: unknown key {key!r}; {suggest(str(key), known, 'known: ' + listing(known))}" for key in data if key not in known)
    values: dict[str, Any] = {}
    for key, one in known.items():
        if key in data:
            values[key] = one.metadata["check"](data[key], f"{where}.{key}", mistakes)
        elif one.default is MISSING and one.default_factory is MISSING:
            mistakes.append(f"{where}: {key} is missing; give it")
    return kind(**values) if len(mistakes) == before else None


def one_of(kind: type[T], data: object, where: str) -> T:
    """Read a dataclass from a mapping.

    Raises:
        CapacityError: with every mistake.
    """
    mistakes: Mistakes = []
    found = read(kind, data, where, mistakes)
    if found is None:
        raise CapacityError(mistakes)
    return found
