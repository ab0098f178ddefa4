# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of slow requests went, by what the hops on their way have logged; the slowest SQL, and errors by cause.

Lines are as the log store gives them: dictionaries whose values are all texts, without the fields that are empty. They come from many hosts, so
nothing in them is believed to be a number, or to fit what another host says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Line = Mapping[str, str]
"""One line of the log store."""

HOPS = {
    "client": ("C", "the client: sending its request, or reading what nginx had ready for it"),
    "entry": ("E", "nginx and the network behind it: connecting, and what no line of a later hop explains"),
    "gateway_queue": ("G", "the model gateway: waiting for a place at a model server"),
    "model_first_token": ("F", "the model server, or the other site's gateway: until the first byte of the answer"),
    "model_rest": ("M", "the model server: the rest of the answer, at the pace of the slower of model and reader"),
    "dify_queue": ("Q", "dify_proxy: waiting for a place in Dify's api"),
    "dify_api": ("A", "Dify: until the first byte of its answer, SQL and models included"),
    "dify_rest": ("R", "Dify: the rest of the answer, at the pace of the slower of Dify and reader"),
    "unknown": ("?", "behind nginx, in a hop whose line is missing or cannot be read"),
}
"""Letter in the bar, and meaning, of each place where the time of a request can go, in the order of the bar."""
BAR = 40
"""Characters of a bar."""
TEXT = 200
"""Characters of a statement, a path or a name that are shown."""
WORDS = 10
"""First words of a message that make it the same error as another."""
KEPT_ALIVE_S = 95
"""Seconds before its request that a line of the model gateway may be dated: by its connection, or by the end of the former request on that."""
LONGEST_S = 7200
"""Seconds that a request may have lasted when its lines are looked for."""
CLOCKS_S = 2
"""Seconds by which the clocks of two hosts may differ."""
TERMINATIONS = {
    "C": "the client closed",
    "S": "the server closed or refused",
    "P": "the proxy refused",
    "L": "the proxy answered",
    "R": "the proxy has no resources left",
    "I": "the proxy failed",
    "D": "the server was found down",
    "U": "a server of higher rank came back",
    "K": "an administrator ended it",
    "c": "the client was too slow",
    "s": "the server was too slow",
}
"""First letter of HAProxy's termination state, in words."""
PHASES = {
    "R": "at the request",
    "Q": "in the queue",
    "C": "connecting to the server",
    "H": "before the answer began",
    "D": "within the answer",
    "L": "at the end of the answer",
    "T": "while it was held back",
}
"""Second letter."""

_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_AGE = re.compile(r"([1-9]\d{0,5})([smhd])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Requests of Dify's api, of its plugin daemon and of models that a dify_proxy hands on to another proxy, which has a line of its own.
_HANDED_ON = frozenset({"every_api", "active_plugin_daemon", "models"})
_STATEMENT = re.compile(r"\bduration: [0-9.]+ ms\s+(?:statement|(?:parse|bind|execute|fastpath)[^:]{0,200}): (.*)", re.DOTALL)
_PLAN = re.compile(r"\bduration: [0-9.]+ ms\s+plan:")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|--[^\n]*", re.DOTALL)
# Of a statement that was cut, the last text has no end.
_LITERAL = re.compile(r"\$(\w*)\$.*?(?:\$\1\$|\Z)|'(?:[^']|'')*(?:'|\Z)|\$\d+|\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b", re.DOTALL | re.IGNORECASE)
_LIST = re.compile(r"\(\s*\?(?:\s*,\s*\?)*\s*\)(?:\s*,\s*\(\s*\?(?:\s*,\s*\?)*\s*\))*")
_LEVEL = re.compile(r"\A.{0,120}?(?:\b(?:ERROR|FATAL|PANIC|CRITICAL)\b|\[(?:error|crit|alert|emerg)\])[:\s]*", re.DOTALL)
_PLACE = re.compile(r"\A(?:\[[^\]]{0,100}\]|[-:])\s*")
_CHANGING = re.compile(r"\b[0-9a-f]{4,}(?:-[0-9a-f]{4,})+\b|\b(?:0x)?[0-9a-f]{8,}\b|\d+", re.IGNORECASE)


class WindowError(ValueError):
    """Times that cannot be asked about; the text says which, and how to write them."""


def window(since: str, until: str, now: datetime) -> dict[str, str]:
    """Give the time that is asked about.

    Args:
        since: Its start: RFC 3339 (``2026-12-01T08:00:00Z``), or an age (``90s``, ``30m``, ``1h``, ``2d``).
        until: Its end, likewise; empty for now.
        now: The present, with its zone.

    Returns:
        ``since`` and ``until``, as RFC 3339 in UTC with milliseconds, and ``began``, when a request that ended in between may have begun.

    Raises:
        WindowError: One of them is no time, or the start is not before the end.
    """
    start = _asked("since", since, now)
    end = _asked("until", until, now) if until else now
    if start >= end:
        raise WindowError(f"since ({since}) is not before until ({until or 'now'}): give an earlier time, or a greater age.")
    return {"since": _stamp(start), "until": _stamp(end), "began": _stamp(start - timedelta(seconds=LONGEST_S))}


def report(answers: Mapping[str, Sequence[Line]], top: int, limit: int) -> dict[str, Any]:
    """Make the report of what the store has answered.

    Args:
        answers: Lines by question:

            - ``entry``: lines of nginx's access log, each a slow request;
            - ``hops``: all lines of ``nginx``, ``model_gateway`` and ``dify_proxy`` with the ids of those;
            - ``statements``: lines of ``postgresql`` with ``milliseconds``;
            - ``statuses``: counts of nginx's answers by ``status`` and ``limit``, with ``lines`` (how many), ``earliest`` and ``latest`` (times) and
              ``example`` (a JSON list with a request's id);
            - ``ends``: counts of the proxies' answers by ``service``, ``status`` and ``end``, likewise;
            - ``messages``: lines of any service with the level error or critical.
        top: Most requests, statements and errors to give.
        limit: Most lines that the store was asked for at once; of a question with so many there may be more.

    Returns:
        ``requests``, the slowest first; ``statements``, the one that took most in all first; ``errors``, the most frequent first; ``legend``, what
        the letters of the bars mean; ``notes``, what could not be read, as sentences. Times are in milliseconds, but ``seconds`` of a request.
    """
    notes = [f"{name}: the store has more lines than the {limit} that were read." for name, lines in answers.items() if len(lines) >= limit]
    requests = _requests(answers.get("entry", ()), answers.get("hops", ()), top, notes)
    statements = _statements(answers.get("statements", ()), notes)[:top]
    counted = [*_counted(answers.get("statuses", ()), _answer_cause), *_counted(answers.get("ends", ()), _end_cause)]
    errors = sorted([*counted, *_messages(answers.get("messages", ()))], key=lambda one: (-one["count"], one["service"], one["cause"]))[:top]
    legend = [f"{letter}  {name}: {meaning}" for name, (letter, meaning) in HOPS.items()]
    return {"requests": requests, "statements": statements, "errors": errors, "legend": legend, "notes": notes}


@dataclass(frozen=True)
class _Passage:
    """What one line of an HAProxy tells of a request, in milliseconds; ``queue + first + rest`` is ``total``."""

    queue: float
    first: float
    rest: float
    total: float


def _requests(entry: Sequence[Line], hops: Sequence[Line], top: int, notes: list[str]) -> list[dict[str, Any]]:
    timed = [line for line in entry if (_number(line.get("seconds")) or 0) > 0]
    if len(timed) < len(entry):
        notes.append(f"{len(entry) - len(timed)} line(s) of nginx tell no time (seconds), and are left out.")
    timed.sort(key=lambda line: -(_number(line.get("seconds")) or 0))
    by_id: dict[str, list[Line]] = {}
    for line in hops:
        by_id.setdefault(line.get("request_id", ""), []).append(line)
    return [_request(line, by_id.get(line.get("request_id", ""), []) if line.get("request_id") else []) for line in timed[:top]]


def _request(line: Line, same_id: Sequence[Line]) -> dict[str, Any]:
    total_ms = 1000 * (_number(line.get("seconds")) or 0)
    notes: list[str] = []
    own = _own_lines(line, same_id, notes)
    hops = _hops(line, total_ms, own, notes)
    known = {name: round(hops[name]) for name in HOPS if name in hops}
    model = next((one["model"] for one in own if one.get("service") == "model_gateway" and one.get("model")), None)
    return {
        "time": line.get("_time", ""),
        "request_id": _text(line.get("request_id", "")),
        "client": _text(line.get("client", "")),
        "tier": _text(line.get("tier", "")),
        "method": _text(line.get("method", "")),
        "path": _text(line.get("path", "")),
        "model": _text(model) if model else None,
        "status": _whole(line.get("status")),
        "seconds": round(total_ms / 1000, 3),
        "slowest": max(hops, key=lambda name: hops[name]) if hops else None,
        "hops": known,
        "bar": _bar(hops),
        "notes": notes,
    }


def _own_lines(line: Line, same_id: Sequence[Line], notes: list[str]) -> list[Line]:
    """Give the later hops' lines that are of this request, and not of another to which a client gave the same id."""
    hops = [one for one in same_id if one.get("service") in ("model_gateway", "dify_proxy")]
    entries = [one for one in same_id if one.get("service") == "nginx" and "seconds" in one]
    if len(entries) < 2:
        return hops
    own, doubtful = [], 0
    here = (line.get("_time"), line.get("host"), line.get("seconds"))
    for hop in hops:
        places = [(one.get("_time"), one.get("host"), one.get("seconds")) for one in entries if _within(hop, one)]
        if places == [here]:
            own.append(hop)
        elif here in places or not places:
            doubtful += 1
    notes.append(
        f"{len(entries)} requests have this id"
        + (f"; {doubtful} line(s) of later hops could belong to more than one of them, and are left out." if doubtful else ".")
    )
    return own


def _within(hop: Line, entry: Line) -> bool:
    end, at = _seconds(entry.get("_time")), _seconds(hop.get("_time"))
    if end is None or at is None:
        return False
    lasted_s = _number(entry.get("seconds")) or 0
    early_s = KEPT_ALIVE_S if hop.get("service") == "model_gateway" else CLOCKS_S
    return end - lasted_s - early_s <= at <= end + CLOCKS_S and (_number(hop.get("milliseconds")) or 0) <= 1000 * (lasted_s + CLOCKS_S)


def _hops(line: Line, total_ms: float, lines: Sequence[Line], notes: list[str]) -> dict[str, float]:
    """Share a request's time out among the hops that it can be told of."""
    if "upstream" not in line:
        # nginx answered by itself: all that lasted was its client.
        return {"client": total_ms}
    behind_s = _sum(line.get("upstream_seconds"))
    if behind_s is None:
        notes.append("nginx's line does not tell how long what is behind it took (upstream_seconds).")
        return {"unknown": total_ms}
    behind_ms = 1000 * behind_s
    hops = {"client": max(0.0, total_ms - behind_ms)}
    if behind_ms > total_ms + 50:
        notes.append(f"nginx's line contradicts itself: {behind_ms:.0f} ms behind it, {total_ms:.0f} ms in all.")
    inner = [one for one in lines if not _handed_on(one)]
    dify_lines = [one for one in inner if one.get("service") == "dify_proxy"] or [one for one in lines if one.get("service") == "dify_proxy"]
    gateways = _passages("model_gateway", [one for one in lines if one.get("service") == "model_gateway"], notes)
    dify = _passages("dify_proxy", dify_lines, notes)
    if gateways:
        hops |= {
            "gateway_queue": sum(one.queue for one in gateways),
            "model_first_token": sum(one.first for one in gateways),
            "model_rest": sum(one.rest for one in gateways),
        }
    explained_ms = sum(one.total for one in gateways)
    if dify:
        # A gateway that was asked under the same id was asked by Dify: its time is within Dify's.
        first_ms, rest_ms = sum(one.first for one in dify), sum(one.rest for one in dify)
        within_first_ms = min(first_ms, explained_ms)
        hops |= {
            "dify_queue": sum(one.queue for one in dify),
            "dify_api": first_ms - within_first_ms,
            "dify_rest": max(0.0, rest_ms - (explained_ms - within_first_ms)),
        }
        explained_ms = max(explained_ms, sum(one.total for one in dify))
    left_ms = behind_ms - explained_ms
    if gateways or dify:
        hops["entry"] = max(0.0, left_ms)
        if -left_ms > max(100.0, 0.02 * behind_ms):
            notes.append(f"The lines of later hops tell {-left_ms:.0f} ms more than nginx waited: clocks, or attempts at the same time.")
        return hops
    connecting_ms = 1000 * (_sum(line.get("upstream_connect_seconds")) or 0)
    hops |= {"entry": min(connecting_ms, behind_ms), "unknown": max(0.0, behind_ms - connecting_ms)}
    notes.append("No readable line of a later hop has this id: what is behind nginx is told as a whole.")
    return hops


def _handed_on(line: Line) -> bool:
    return line.get("service") == "dify_proxy" and (line.get("frontend") in _HANDED_ON or line.get("backend", "").endswith("_elsewhere"))


def _passages(service: str, lines: Iterable[Line], notes: list[str]) -> list[_Passage]:
    found = [_passage(line) for line in lines]
    if unread := found.count(None):
        notes.append(f"{unread} line(s) of {service} tell no time that can be read.")
    return [one for one in found if one]


def _passage(line: Line) -> _Passage | None:
    """Read the timers of an HAProxy; one that is -1 was not reached, so that what is left of the total was spent there."""
    total, queue, first_byte = (_number(line.get(name)) for name in ("milliseconds", "queue_milliseconds", "first_byte_milliseconds"))
    # Lines of an earlier release do not have it; then connecting counts to the rest.
    connect = _number(line.get("connect_milliseconds")) or 0
    if total is None or queue is None or first_byte is None or total < 0:
        return None
    waited, first = max(0.0, queue), max(0.0, connect) + max(0.0, first_byte)
    # Timers that say more than the total do not make the request longer than it was.
    waited = min(waited, total)
    first = min(first, total - waited)
    left = total - waited - first
    if queue < 0:
        # Refused, or answered by the proxy itself: there was no queue to wait in.
        return _Passage(0, 0, left, total) if line.get("end", "")[:1] in ("L", "P") else _Passage(left, 0, 0, total)
    if connect < 0 or first_byte < 0:
        return _Passage(waited, first + left, 0, total)
    return _Passage(waited, first, left, total)


def _bar(hops: Mapping[str, float]) -> str:
    """Draw the shares of the hops, a letter each, by largest remainders."""
    total = sum(hops.values())
    if total <= 0:
        return ""
    shares = {name: BAR * hops.get(name, 0) / total for name in HOPS}
    cells = {name: int(share) for name, share in shares.items()}
    for name in sorted(HOPS, key=lambda one: cells[one] - shares[one])[: BAR - sum(cells.values())]:
        cells[name] += 1
    return "".join(HOPS[name][0] * count for name, count in cells.items())


def _statements(lines: Sequence[Line], notes: list[str]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    plans = 0
    for line in lines:
        text, lasted_ms = line.get("_msg", ""), _number(line.get("milliseconds"))
        plans += bool(_PLAN.search(text))
        if lasted_ms is None or not (said := _STATEMENT.search(text)):
            continue
        statement = normalised(said[1])
        database, user = _text(line.get("database", "")), _text(line.get("user", ""))
        one = found.setdefault(
            (database, user, statement),
            {"count": 0, "total_ms": 0.0, "worst_ms": 0.0, "worst_at": "", "host": "", "database": database, "user": user, "statement": statement},
        )
        one["count"] += 1
        one["total_ms"] = round(one["total_ms"] + lasted_ms, 3)
        if lasted_ms >= one["worst_ms"]:
            one |= {"worst_ms": lasted_ms, "worst_at": line.get("_time", ""), "host": _text(line.get("host", ""))}
    if plans:
        notes.append(f"auto_explain logged {plans} plan(s). They are lines of their own, after those: look at the host's, by the time.")
    return sorted(found.values(), key=lambda one: (-one["total_ms"], one["statement"]))


def normalised(statement: str) -> str:
    """Give a statement without its values, so that it equals others of its kind: texts and numbers are ``?``, and lists of them one."""
    text = _COMMENT.sub(" ", statement[:8000])
    return _text(_LIST.sub("(?)", _LITERAL.sub("?", text)))


def _counted(rows: Sequence[Line], cause: Callable[[Line], str]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        count = _whole(row.get("lines"))
        if count is None or count < 1:
            continue
        service = _text(row.get("service", "nginx"))
        times = {"first": row.get("earliest", ""), "last": row.get("latest", "")}
        found.append({"service": service, "cause": cause(row), "count": count, **times, "request_id": _example(row.get("example", ""))})
    return found


def _answer_cause(row: Line) -> str:
    status = _whole(row.get("status"))
    if not status:
        return "no answer: the client went away"
    return f"status {status}" + {"REJECTED": ", refused by the rate limit", "DELAYED": ", delayed by the rate limit"}.get(row.get("limit", ""), "")


def _end_cause(row: Line) -> str:
    status, end = _whole(row.get("status")), row.get("end", "")
    words = " ".join(part for part in (TERMINATIONS.get(end[:1], ""), PHASES.get(end[1:2], "")) if part)
    return (f"status {status}" if status and status > 0 else "no answer") + (f", {words} ({_text(end)})" if words else "")


def _messages(lines: Sequence[Line]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        service, cause = _text(line.get("service", "")), first_words(line.get("_msg", ""))
        at = line.get("_time", "")
        one = found.setdefault((service, cause), {"service": service, "cause": cause, "count": 0, "first": at, "last": at, "request_id": None})
        one["count"] += 1
        one |= {"first": min(one["first"], at), "last": max(one["last"], at)}
        one["request_id"] = one["request_id"] or _text(line.get("request_id", "")) or None
    return list(found.values())


def first_words(message: str) -> str:
    """Give the first words of what a service says: behind its level, and without numbers and ids, which change from one time to the next."""
    text = message[:8000]
    if text.lstrip().startswith("{"):
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, dict):
            text = next((said[name] for name in ("message", "msg", "event", "error") if isinstance(said.get(name), str) and said[name]), text)
    text = _LEVEL.sub("", text, count=1)
    while place := _PLACE.match(text):
        text = text[place.end() :]
    return _text(" ".join(_CHANGING.sub("N", text).split()[:WORDS]))


def _example(text: str) -> str | None:
    """Give the first of a JSON list of ids."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _text(said[0]) or None if isinstance(said, list) and said and isinstance(said[0], str) else None


def _text(text: str) -> str:
    """Give a text as it may stand in a table: one line, nothing that a terminal obeys, and not too long."""
    shown = "".join(one if one.isprintable() else "·" for one in " ".join(text[: 20 * TEXT].split()))
    return shown if len(shown) <= TEXT else shown[: TEXT - 1] + "…"


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def _whole(text: str | None) -> int | None:
    return None if (number := _number(text)) is None or not math.isclose(number, round(number)) else round(number)


def _sum(text: str | None) -> float | None:
    """Sum up what nginx tells of several attempts (``0.004, 1.200 : 0.010``; ``-`` for one that had none)."""
    parts = [part.strip() for part in re.split(r"[,:]", text or "")]
    numbers = [_number(part) for part in parts if part != "-"]
    return math.fsum(one for one in numbers if one is not None) if numbers and all(one is not None and one >= 0 for one in numbers) else None


def _seconds(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _asked(name: str, text: str, now: datetime) -> datetime:
    try:
        if age := _AGE.fullmatch(text):
            found = now - timedelta(seconds=int(age[1]) * _UNITS_S[age[2]])
        elif _MOMENT.fullmatch(text):
            found = datetime.fromisoformat(text.upper()).astimezone(UTC)
        else:
            raise ValueError
        # What is asked about lies in years that a store may know.
        if not 2000 <= found.year < 2100:
            raise ValueError
    except (ValueError, OverflowError):
        raise WindowError(
            f"{name} ({text}) is no time: write it as 2026-12-01T08:00:00+08:00 (RFC 3339, with its zone), or as how long ago: 90s, 30m, 1h, 2d."
        ) from None
    return found


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
