# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask an OpenAI-compatible endpoint, or an application of Dify, as a user would, and measure what a user would feel.

Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Probe:
    """One question to one model.

    Attributes:
        name: What is proved, in a reader's words.
        url: Base URL, e.g. ``https://ai.hq.lab.internal``; the path is added.
        model: Model to ask for; of an application of Dify, which has its own, only a name.
        key: API key, or an empty string to send none.
        address: Address to connect to instead of resolving the URL's host; the certificate is still verified against that host.
        expect: HTTP status that makes the probe succeed.
        max_tokens: Length of the answer asked for, in tokens; an application of Dify has its own.
        protocol: ``openai``, or ``dify`` for the chat of an application.
    """

    name: str
    url: str
    model: str
    key: str = ""
    address: str = ""
    expect: int = 200
    max_tokens: int = 16
    protocol: str = "openai"


@dataclass
class Outcome:
    """What came back.

    Attributes:
        name: Name of the probe.
        model: Model asked for.
        expect: Status wanted.
        status: Status received; 0 if no answer was received.
        ok: Whether the status was the wanted one and, for 200, the stream was complete and named the model.
        answered_by: Model named in the answer.
        chunks: Data events received.
        first_chunk_ms: From sending to the first event, in milliseconds.
        total_ms: From connecting to the end, in milliseconds.
        spread_ms: From the first event to the last, in milliseconds: near zero if something on the way buffers.
        error: What went wrong, in words; empty if nothing did.
    """

    name: str
    model: str
    expect: int
    status: int = 0
    ok: bool = False
    answered_by: str = ""
    chunks: int = 0
    first_chunk_ms: float = 0.0
    total_ms: float = 0.0
    spread_ms: float = 0.0
    error: str = ""
    times_ms: list[float] = field(default_factory=list, repr=False)


class _PinnedConnection(http.client.HTTPSConnection):
    """HTTPS to a given address under a given name, so that a probe needs no resolver and no ``/etc/hosts``."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext, timeout: float) -> None:
        """Remember where to connect; ``host`` stays the name that is verified."""
        super().__init__(host, port, timeout=timeout, context=context)
        self._address = address or host
        self._pinned_context = context

    def connect(self) -> None:
        """Connect to the address, speak TLS to the name."""
        raw = self._create_connection((self._address, self.port), self.timeout)  # type: ignore[attr-defined]
        self.sock = self._pinned_context.wrap_socket(raw, server_hostname=self.host)


def ask(probe: Probe, ca_file: str, timeout: float) -> Outcome:
    """Ask one question with ``stream: true`` and read the answer event by event.

    Args:
        probe: The question.
        ca_file: Authority that must have signed the server's certificate, as a PEM file.
        timeout: Longest silence to bear, in seconds.

    Returns:
        The outcome; network errors are part of it, not raised.
    """
    outcome = Outcome(name=probe.name, model=probe.model, expect=probe.expect)
    parts = urlsplit(probe.url)
    path, body = _question(probe)
    headers = {"Content-Type": "application/json"}
    if probe.key:
        headers["Authorization"] = f"Bearer {probe.key}"
    started = time.monotonic()
    connection = _PinnedConnection(parts.hostname or "", parts.port or 443, probe.address, ssl.create_default_context(cafile=ca_file), timeout)
    try:
        connection.request("POST", parts.path.rstrip("/") + path, body=json.dumps(body), headers=headers)
        response = connection.getresponse()
        outcome.status = response.status
        if response.status == http.client.OK:
            (_read_chat if probe.protocol == "dify" else _read_stream)(response, started, outcome)
        else:
            outcome.error = response.read(2000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException, ValueError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    outcome.total_ms = _ms_since(started)
    if outcome.times_ms:
        outcome.first_chunk_ms = outcome.times_ms[0]
        outcome.spread_ms = round(outcome.times_ms[-1] - outcome.times_ms[0], 1)
    complete = outcome.status != http.client.OK or (outcome.answered_by == probe.model and outcome.chunks > 0 and not outcome.error)
    outcome.ok = outcome.status == probe.expect and complete
    return outcome


def _question(probe: Probe) -> tuple[str, dict[str, Any]]:
    """Give path and body of a question."""
    words = "Say something."
    if probe.protocol == "dify":
        return "/v1/chat-messages", {"inputs": {}, "query": words, "response_mode": "streaming", "user": "sovereign.dify smoke test"}
    body = {"model": probe.model, "stream": True, "max_tokens": probe.max_tokens, "messages": [{"role": "user", "content": words}]}
    return "/v1/chat/completions", body


def _read_chat(response: http.client.HTTPResponse, started: float, outcome: Outcome) -> None:
    """Read Dify's events until the message ends, noting when each piece of it came."""
    finished = False
    for line in response:
        if not line.startswith(b"data:"):
            continue
        event: dict[str, Any] = json.loads(line[5:])
        if event["event"] == "error":
            outcome.error = f"{event.get('code', 'error')}: {event.get('message')}"
            return
        if event["event"] in ("message", "agent_message"):
            # Dify does not say which model it has asked.
            outcome.answered_by = outcome.model
            outcome.chunks += 1
            outcome.times_ms.append(_ms_since(started))
        finished |= event["event"] == "message_end"
    if not finished:
        outcome.error = "the stream ended before message_end"


def _read_stream(response: http.client.HTTPResponse, started: float, outcome: Outcome) -> None:
    """Read server-sent events until ``[DONE]``, noting when each one came."""
    finished = False
    for line in response:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            finished = True
            break
        event: dict[str, Any] = json.loads(data)
        outcome.answered_by = str(event.get("model", ""))
        outcome.chunks += 1
        outcome.times_ms.append(_ms_since(started))
    if not finished:
        outcome.error = "the stream ended before [DONE]"


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)


def ask_all(probes: list[Probe], ca_file: str, timeout: float, workers: int) -> list[dict[str, Any]]:
    """Ask several questions, a few at a time, and return the outcomes in the order of the probes."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        outcomes = list(pool.map(lambda probe: ask(probe, ca_file, timeout), probes))
    return [{key: value for key, value in asdict(outcome).items() if key != "times_ms"} for outcome in outcomes]
