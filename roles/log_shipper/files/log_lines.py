# Ansible managed
"""Make one JSON object of each line that rsyslog has read, with secrets and personal data masked.

``log_lines.py <settings (JSON)>``

rsyslog's module mmexternal starts this program, writes a message as one line of JSON (``fulljson``), and waits for one line of answer. The answer
holds the document as a string, ``$!doc``, and a name for it, ``$!id``; it empties the message, so that rsyslog's queues hold no line that is not
masked. Whatever a line is, it gets an answer: what cannot be read as declared is sent as text, masked like all others.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

LEVELS = ("critical", "critical", "critical", "error", "warning", "notice", "info", "debug")
"""Levels by the journal's priority."""
WORDS = {
    **dict.fromkeys(("emerg", "emergency", "alert", "crit", "critical", "fatal", "panic", "c", "f"), "critical"),
    **dict.fromkeys(("err", "error", "e"), "error"),
    **dict.fromkeys(("warn", "warning", "w"), "warning"),
    **dict.fromkeys(("notice", "n"), "notice"),
    **dict.fromkeys(("info", "information", "log", "statement", "detail", "hint", "context", "i"), "info"),
    **dict.fromkeys(("debug", "trace", "debug1", "debug2", "debug3", "debug4", "debug5", "d"), "debug"),
}
"""Levels by what services call them, in lower case."""
BUILT_IN = ("keys", "identity_cards", "payment_cards", "mobiles", "emails")
"""Masks that this program knows."""
LIMIT = 65536
"""Characters of a message that are kept. Stores refuse lines much longer, and say so to nobody."""

# What stands before and after a number that is one of its own. JSON in text has \n and the like before it; a part of a decimal or of a hash is none.
_BEFORE = r"(?:(?<![0-9A-Za-z_.])|(?<=\\[nrtbf])|(?<=[^0-9A-Za-z_]\.)|(?<=[A-Za-z]\.))"
_AFTER = r"(?![0-9A-Za-z_])(?!\.\d)"
_IDENTITY = re.compile(rf"(?<![0-9.])[1-9]\d{{5}}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{{3}}[0-9Xx]{_AFTER}")
# Numbers that begin with 0 or 1 are no cards of banks, but times and airlines; 20… is a date.
_CARD = re.compile(rf"{_BEFORE}(?:[3-69]\d|2[2-7]|81)(?:[ -]?\d){{11,17}}{_AFTER}")
_MOBILE = re.compile(rf"{_BEFORE}(?:(?:\+|00)?86[ -]?)?1[3-9]\d(?:\d{{8}}|[ -]\d{{4}}[ -]\d{{4}}){_AFTER}")
_PLUS_MOBILE = re.compile(rf"(?<!\d)\+861[3-9]\d{{9}}{_AFTER}")
# The last label of a name; systemd's instances (vllm@faq.service) look alike.
_UNITS = r"(?!(?:service|socket|timer|target|mount|automount|slice|scope|path|device|swap)\b)"
_EMAIL = re.compile(rf"(?<![\w.%+-])[A-Za-z0-9](?:[\w.%+-]{{0,63}})@(?:[A-Za-z0-9-]{{1,63}}\.){{1,8}}{_UNITS}[A-Za-z]{{2,24}}(?![\w-])")
_NUMBERS = re.compile(r"\d(?:[ -]?\d){10}")
_KEYS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), "[key masked]"),
    # Authorization: Bearer …, "authorization": "Basic …", and the scheme alone.
    (re.compile(r"(?i)(\bauthorization\\*[\"']?\s*[:=]\s*\\*[\"']?)(?:(bearer|basic|token|digest|apikey)\s+)?[^\s\"'\\,;]+"), r"\1\2 [key masked]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+(?=[A-Za-z._~+/-]*[0-9=])[A-Za-z0-9._~+/=-]{8,}"), r"\1 [key masked]"),
    (
        re.compile(
            r"(?i)(?<![A-Za-z0-9])((?:[a-z0-9_]+[-_])?(?:api[-_]?key|access[-_]?key|secret[-_]?key|access[-_]?token|refresh[-_]?token|auth[-_]?token"
            r"|password|passwd|pwd|secret|token)\\*[\"']?\s*[:=]\s*\\*[\"']?)(?!\[key masked)[^\s\"'\\,;&}{)\]]{4,}"
        ),
        r"\1[key masked]",
    ),
    (re.compile(r"(?<![A-Za-z0-9])(?:sk|pk|rk)-[A-Za-z0-9_-]{12,}"), "[key masked]"),
    (re.compile(r"(?<![A-Za-z0-9-])(?:app|dataset)-[A-Za-z0-9]{20,}(?![A-Za-z0-9-])"), "[key masked]"),
    (re.compile(r"\b(?:AKIA|LTAI)[A-Za-z0-9]{12,}\b"), "[key masked]"),
    # The password of an address: scheme://user:password@host.
    (re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"']{0,64}:)[^\s/@\"']{1,128}@"), r"\1[key masked]@"),
)
_KEY_WORDS = (
    *("private", "authorization", "bearer", "basic", "api", "access", "secret", "token", "passw", "pwd"),
    *("sk-", "pk-", "rk-", "app-", "dataset-", "akia", "ltai", "://"),
)
"""What a text has in lower case, one of it at least, where there is a key. Looking for words costs a thirtieth of one pattern for all."""
_DECODE = json.JSONDecoder(strict=False).decode
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ENCODE_ASCII = json.JSONEncoder(separators=(",", ":")).encode


def _may_hold_keys(text: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in _KEY_WORDS)


def identity_card(number: str) -> bool:
    """Tell whether 18 characters are the number of a Chinese identity card, by its check digit (GB 11643)."""
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2), strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def payment_card(number: str) -> bool:
    """Tell whether digits are the number of a card, by its check digit (Luhn)."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _identity(found: re.Match[str]) -> str:
    return "[identity card masked]" if identity_card(found[0]) else found[0]


def _card(found: re.Match[str]) -> str:
    digits = re.sub(r"[ -]", "", found[0])
    return "[payment card masked]" if 13 <= len(digits) <= 19 and payment_card(digits) else found[0]


def masker(masks: list[str], own: Mapping[str, str]) -> Callable[[str], str]:
    """Give a function that masks a text.

    Args:
        masks: Names of the built-in masks to use.
        own: Further patterns by name. What matches is replaced as a whole, or its first group where it has one.
    """
    keys, identity, cards, mobiles, emails = (name in masks for name in BUILT_IN)
    further = [(re.compile(pattern), f"[{name} masked]") for name, pattern in own.items()]

    def replaced(found: re.Match[str], text: str) -> str:
        if not found.re.groups or found[1] is None:
            return text
        start, end = (place - found.start() for place in found.span(1))
        return found[0][:start] + text + found[0][end:]

    def mask(text: str) -> str:
        if keys and _may_hold_keys(text):
            for pattern, instead in _KEYS:
                text = pattern.sub(instead, text)
        if emails and "@" in text:
            text = _EMAIL.sub("[email masked]", text)
        if _NUMBERS.search(text):
            # The longest first: an identity card's number holds what looks like others.
            if identity:
                text = _IDENTITY.sub(_identity, text)
            if cards:
                text = _CARD.sub(_card, text)
            if mobiles:
                text = _PLUS_MOBILE.sub("[mobile masked]", text)
                text = _MOBILE.sub("[mobile masked]", text)
        for pattern, instead in further:
            text = pattern.sub(lambda found, instead=instead: replaced(found, instead), text)  # type: ignore[misc]
        return text

    return mask


SECRET_KEY = re.compile(
    r"(?i)^(?:.*[-_])?(?:authorization|api[-_]?key|password|passwd|pwd|secret|token|access[-_]?key|secret[-_]?key|private[-_]?key)$"
)
"""Names of JSON members whose value is a secret, whatever it looks like."""


class Lines:
    """Makes documents of messages.

    Attributes:
        mask: Masks a text.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Read the settings.

        Args:
            settings: ``site``, ``host``, ``masks``, ``own_masks`` and ``sources``, as the look-up ``monitoring_logs`` gives them.
        """
        self.mask = masker(settings["masks"], settings["own_masks"])
        self.keys = "keys" in settings["masks"]
        self.further = bool(settings["own_masks"])
        self.common = {"site": settings["site"], "host": settings["host"]}
        self.identifiers: dict[str, Mapping[str, Any] | None] = {}
        self.identifier_families: list[tuple[str, Mapping[str, Any]]] = []
        self.units: dict[str, Mapping[str, Any] | None] = {}
        self.unit_families: list[tuple[str, Mapping[str, Any]]] = []
        self.tags: dict[str, Mapping[str, Any]] = {}
        self.patterns: dict[str, re.Pattern[str]] = {}
        for source in settings["sources"]:
            self.tags[f"file.{source['name']}"] = source
            self.patterns[source["name"]] = re.compile(source["pattern"]) if source["pattern"] else re.compile(r"(?!)")
            for names, known, families in (
                (source["identifiers"], self.identifiers, self.identifier_families),
                (source["units"], self.units, self.unit_families),
            ):
                known.update((name, source) for name in names if "*" not in name)
                families.extend((name, source) for name in names if "*" in name)

    def answer(self, line: bytes) -> bytes:
        """Give rsyslog's answer to a message; whatever goes wrong, it is one, and nothing in it is not masked."""
        try:
            document = self.document(_DECODE(line.decode("utf-8", "replace")))
        except Exception as error:  # no line may stop the others
            document = self.unread(line, error)
        text = _ENCODE(document)
        return _ENCODE_ASCII({"msg": "", "$!": {"doc": text, "id": os.urandom(12).hex()}}).encode() + b"\n"

    def unread(self, line: bytes, error: Exception) -> dict[str, Any]:
        """Give the document of a message that cannot be read."""
        text = line.decode("utf-8", "replace").rstrip("\n")
        try:
            message = self.mask(text)[:LIMIT]
        except Exception as second:  # as above
            message = f"A line of {len(text)} characters could not be masked ({type(second).__name__}). It is on this host alone."
        now = stamp(datetime.now(timezone.utc).timestamp())  # noqa: UP017 - Debian 12 has Python 3.11, but tests may be older
        return {"@timestamp": now, "message": message, **self.common, "service": "log_shipper", "level": "error", "unread": type(error).__name__}

    def document(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Give the document of a message.

        Args:
            entry: The message with all its properties, as rsyslog's ``fulljson`` has them.
        """
        journal = entry.get("$!") or {}
        unit = str(journal.get("_SYSTEMD_UNIT", ""))
        identifier = str(journal.get("SYSLOG_IDENTIFIER", ""))
        source = self.source(str(entry.get("syslogtag", "")), identifier, unit)
        text = str(journal.get("MESSAGE", entry.get("msg", "")))
        time = entry_time(entry, journal)
        level = LEVELS[int(journal["PRIORITY"])] if str(journal.get("PRIORITY", "")) in tuple("01234567") else "info"
        fields: dict[str, Any] = {}
        message = None
        if source:
            read = self.read_json(text) if source["format"] == "json" else None
            if read is None:
                message = self.mask(text)
                if found := self.patterns[source["name"]].search(message):
                    fields = {name: value for name, value in found.groupdict().items() if value is not None}
            else:
                message, said = read
                fields = {name: value for name, path in source["fields"].items() if (value := member(said, path)) not in (None, "", "-")}
            for name in source["numbers"]:
                if isinstance(fields.get(name), str):
                    fields[name] = number(fields[name])
            level = WORDS.get(str(fields.pop("level", "")).lower(), level)
            time = told_time(fields.pop("time", None)) or time
        else:
            message = self.mask(text)
        document = {
            "@timestamp": stamp(time),
            "message": message[:LIMIT],
            **self.common,
            "service": source["service"] if source else identifier or unit.partition(".")[0] or "unknown",
            "level": level,
        }
        if len(message) > LIMIT:
            document["cut"] = len(message)
        if unit:
            document["unit"] = unit
        return {**document, **fields}

    def source(self, tag: str, identifier: str, unit: str) -> Mapping[str, Any] | None:
        """Give the declaration that a message belongs to, if any."""
        if (tag := tag.rstrip(":")) in self.tags:
            return self.tags[tag]
        return self.named(identifier, self.identifiers, self.identifier_families) or self.named(unit, self.units, self.unit_families)

    def named(self, name: str, known: dict[str, Mapping[str, Any] | None], families: list[tuple[str, Mapping[str, Any]]]) -> Mapping[str, Any] | None:
        """Give the declaration that has a name, or a pattern of it, and remember it."""
        if name not in known:
            if len(known) > 10000:  # names of scopes are without end
                return None
            known[name] = next((source for family, source in families if fnmatchcase(name, family)), None)
        return known[name]

    def read_json(self, text: str) -> tuple[str, Any] | None:
        """Give a line and the object that it is, both masked, or nothing where it is none."""
        if not text.lstrip().startswith("{"):
            return None
        try:
            said = _DECODE(text)
        except (ValueError, RecursionError):
            return None
        # Most lines hold nothing to mask, which one look at the whole tells five times as fast as one at each part.
        if self.harmless(text):
            return text, said
        said = self.masked(said)
        return _ENCODE(said), said

    def harmless(self, text: str) -> bool:
        """Tell whether a line of JSON surely holds nothing that a mask would change, however it is escaped."""
        return not (self.further or "\\u" in text or "@" in text or _may_hold_keys(text) or _NUMBERS.search(text))

    def masked(self, value: Any, secret: bool = False) -> Any:  # noqa: ANN401 - JSON
        """Mask all that is in a value of JSON."""
        if isinstance(value, dict):
            return {self.mask(name): self.masked(part, self.keys and bool(SECRET_KEY.match(name))) for name, part in value.items()}
        if isinstance(value, list):
            return [self.masked(part, secret) for part in value]
        if secret and isinstance(value, str) and value:
            return "[key masked]"
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**10:
            return value if (text := self.mask(str(value))) == str(value) else text
        return value


def member(said: Any, path: str) -> Any:  # noqa: ANN401 - JSON
    """Give a member of an object by its dotted path; what has members itself, as text."""
    for part in path.split("."):
        if not isinstance(said, dict) or part not in said:
            return None
        said = said[part]
    return said if isinstance(said, str | int | float) else _ENCODE(said)


def number(text: str) -> Any:  # noqa: ANN401 - one of three
    """Give the number that a text is, or the text."""
    if re.fullmatch(r"-?\d{1,15}", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d{1,15}\.\d{1,15}", text) else text


def entry_time(entry: Mapping[str, Any], journal: Mapping[str, Any]) -> float | str:
    """Give when a message was written: microseconds of the journal, or the time at which rsyslog read it."""
    told = str(journal.get("_SOURCE_REALTIME_TIMESTAMP", ""))
    if told.isdecimal():
        return int(told) / 1e6
    return str(entry.get("timereported", ""))


def told_time(told: Any) -> float | None:  # noqa: ANN401 - JSON
    """Give the time that a line tells itself: seconds since 1970, or ISO 8601."""
    try:
        moment = float(told) if isinstance(told, int | float) or re.fullmatch(r"\d+(\.\d+)?", str(told)) else datetime.fromisoformat(told).timestamp()
    except (TypeError, ValueError):
        return None
    return moment if 946684800 <= moment <= 4102444800 else None


def stamp(moment: float | str) -> str:
    """Give a time as RFC 3339 in UTC with microseconds."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment).timestamp()
        except ValueError:
            moment = datetime.now(timezone.utc).timestamp()  # noqa: UP017
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: UP017


def messages(descriptor: int) -> Iterator[bytes]:
    """Yield what rsyslog writes, line by line, until it closes the pipe."""
    with os.fdopen(descriptor, "rb", buffering=1 << 16, closefd=False) as stream:
        yield from iter(stream.readline, b"")


def main(settings: str) -> None:
    """Answer until rsyslog ends."""
    # rsyslog reads standard error, too, as an answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    lines = Lines(json.loads(Path(settings).read_text(encoding="utf-8")))
    for line in messages(0):
        answer = lines.answer(line)
        while answer:
            answer = answer[os.write(1, answer) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
