"""Requests to models as clients send them, through the gateway of this scenario, one after another for as long as something else goes on."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.testing import host_variables

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
STATE = SCENARIO / "inventory/.state"
PORT = 8443
CLIENT = "tester"


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Attributes:
        status: HTTP's status; 0 without an answer.
        text: The body.
        problem: What cut it short, if anything did.
        began: When it was sent, in seconds of the monotonic clock.
        ended: When that was over.
    """

    status: int
    text: str
    problem: str
    began: float
    ended: float

    @property
    def whole(self) -> bool:
        """Whether all of it came; of a stream, to its last event."""
        return self.status == http.client.OK and not self.problem and (not self.text.startswith("data:") or "data: [DONE]" in self.text)


def ask(model: str, timeout: float = 60, **fields: Any) -> Answer:
    """Send one request to the gateway, on a connection of its own."""
    began, status, parts, problem = time.monotonic(), 0, [], ""
    gateway = host_variables()["gateway"]["node"]
    body = json.dumps({"model": model, "prompt": "Good morning, is anybody there?", "max_tokens": 4, **fields})
    key = (STATE / "secrets/model_gateway" / CLIENT).read_text().strip()
    context = ssl.create_default_context(cafile=STATE / "pki/sites/hq/ca.crt")
    context.check_hostname = False  # It is asked by its address; its authority is what matters here.
    connection = http.client.HTTPSConnection(gateway["address"], PORT, timeout=timeout, context=context)
    try:
        connection.request("POST", "/v1/completions", body=body, headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
        response = connection.getresponse()
        status = response.status
        while part := response.read1(65536):
            parts.append(part)
    except (OSError, http.client.HTTPException) as error:
        problem = repr(error)
    finally:
        connection.close()
    return Answer(status, b"".join(parts).decode(errors="replace"), problem, began, time.monotonic())


@dataclass
class Load:
    """Clients that each send one request after another while the block lasts: half of them whole answers, half of them streams."""

    model: str
    clients: int = 2
    tokens: int = 24
    pause: float = 1.2
    timeout: float = 60
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> Load:
        """Begin."""
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number % 2 == 0,), daemon=True) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let what has begun end."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * self.timeout)

    def _send(self, stream: bool) -> None:
        while not self._over.is_set():
            self.answers.append(ask(self.model, self.timeout, stream=stream, max_tokens=self.tokens, ignore_eos=True))
            self._over.wait(self.pause)

    @property
    def failed(self) -> list[Answer]:
        """Those that were refused, or cut."""
        return [answer for answer in self.answers if not answer.whole]
