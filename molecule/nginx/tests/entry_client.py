"""Questions to the entries, asked from inside the host that plays the clients."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
CLUSTER = "mol-nginx"
CLIENTS = "backend"
NAME = "ai.nginx.test"
ADDRESS = {"debian13": "198.18.26.11", "debian12": "198.18.26.12"}
# Two addresses of clients, that of a load balancer which debian12 trusts, and one outside the clients' networks.
HERE, THERE, BALANCER, OUTSIDE = "198.18.26.31", "198.18.26.32", "198.18.26.33", "198.18.26.131"

# Runs inside a host: opens a connection, sends what it is told piece by piece, and notes when each part of the answer came.
CONVERSATION = """
import base64, json, socket, ssl, sys, time
job = json.load(sys.stdin)
context = ssl.create_default_context(cafile="/etc/sovereign/pki/ca.crt")
begun = time.monotonic()
parts, failure = [], ""
try:
    connection = socket.create_connection((job["address"], job["port"]), job["timeout"], (job["source"], 0))
    if job["tls"]:
        connection = context.wrap_socket(connection, server_hostname=job["name"])
    for pause, piece in job["pieces"]:
        time.sleep(pause)
        connection.sendall(base64.b64decode(piece))
    while part := connection.recv(65536):
        parts.append((time.monotonic() - begun, base64.b64encode(part).decode()))
except OSError as error:
    failure = type(error).__name__
print(json.dumps({"parts": parts, "failure": failure, "seconds": time.monotonic() - begun}))
"""

# Runs inside a host: several clients at once, each with connections of its own, each asking at its own pace.
CROWD = """
import collections, http.client, json, ssl, sys, threading, time
job = json.load(sys.stdin)
context = ssl.create_default_context(cafile="/etc/sovereign/pki/ca.crt")

class Connection(http.client.HTTPSConnection):
    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = context.wrap_socket(self.sock, server_hostname=job["name"])

def connected(client):
    connection = Connection(job["address"], 443, timeout=20, source_address=(client["source"], 0))
    # Not counted by any limit: when the crowd sets out, everybody is connected.
    connection.request("GET", "/healthz", headers={"Host": job["name"]})
    connection.getresponse().read()
    return connection

def ask(client, outcomes, lane, lanes):
    connection, turn = connected(client), lane
    ready.wait()
    while (due := start[0] + turn / client["pace"]) < start[0] + job["seconds"]:
        time.sleep(max(0, due - time.monotonic()))
        # Who is late skips turns instead of asking in a burst.
        turn = max(turn + lanes, int((time.monotonic() - start[0]) * client["pace"]) // lanes * lanes + lane)
        asked = time.monotonic()
        try:
            connection = connection or connected(client)
            headers = {"Host": job["name"]} | ({"Authorization": "Bearer " + client["key"]} if client["key"] else {})
            if client["body"]:
                connection.request("POST", "/v1/chat/completions", client["body"], headers)
            else:
                connection.request("GET", "/v1/models", headers=headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except OSError as error:
            status, connection = type(error).__name__, None
        outcomes.append((asked, time.monotonic() - asked, status))

threads, start, results = [], [], {name: [] for name in job["clients"]}
ready = threading.Barrier(len(job["clients"]) * job["lanes"], action=lambda: start.append(time.monotonic()))
for name, client in job["clients"].items():
    for lane in range(job["lanes"]):
        threads.append(threading.Thread(target=ask, args=(client, results[name], lane, job["lanes"])))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({name: [(asked - start[0], took, status) for asked, took, status in sorted(outcomes)] for name, outcomes in results.items()}))
"""


@dataclass(frozen=True)
class Answer:
    """What came back over one connection.

    Attributes:
        raw: All bytes.
        moments: When each part arrived, in seconds since the connection was begun.
        failure: Name of the exception that ended the connection; empty if the server closed it.
        seconds: How long the connection lived.
    """

    raw: bytes
    moments: list[float]
    failure: str
    seconds: float

    @property
    def last(self) -> Answer:
        """The last of several answers."""
        return replace(self, raw=b"HTTP/1.1 " + self.raw.rpartition(b"HTTP/1.1 ")[2])

    @property
    def status(self) -> int:
        """Status of the first answer; 0 if there was none."""
        return int(self.raw.split(b" ", 2)[1]) if self.raw.startswith(b"HTTP/") else 0

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the first answer, by lower-case name."""
        lines = self.raw.split(b"\r\n\r\n", 1)[0].decode().split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def body(self) -> bytes:
        """All that follows the headers of the first answer."""
        return self.raw.partition(b"\r\n\r\n")[2]

    def json(self) -> Any:
        """Body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Code of a refusal in OpenAI's form."""
        error = self.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["message"]
        assert self.headers["content-type"] == "application/json"
        return str(error["code"])


@dataclass(frozen=True)
class Tally:
    """What one client of a crowd met: for each request, when it was asked, how long the answer took, and its status (or the error's name)."""

    outcomes: list[tuple[float, float, int | str]]

    def count(self, status: int) -> int:
        """Number of answers with a status."""
        return sum(1 for _, _, seen in self.outcomes if seen == status)

    @property
    def statuses(self) -> set[int | str]:
        """All statuses met."""
        return {status for _, _, status in self.outcomes}

    @property
    def seconds(self) -> float:
        """Time from the first question to the last."""
        return self.outcomes[-1][0] - self.outcomes[0][0]


def key_of(client: str) -> str:
    """Key of a client, as its owner was given it."""
    return (SCENARIO / "inventory/.state/secrets/model_gateway" / client).read_text().strip()


def chat(**fields: object) -> bytes:
    """Body of a chat request."""
    return json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def http(
    body: bytes = b"",
    *,
    key: str | None = None,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    host: str = NAME,
    headers: str = "",
    close: bool = True,
) -> bytes:
    """One request, as bytes."""
    lines = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}"
    lines += "Connection: close\r\n" if close else ""
    lines += f"Authorization: Bearer {key}\r\n" if key else ""
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def inside(program: str, job: dict[str, Any], timeout: float) -> Any:
    """Run a program in the host that plays the clients; give what it prints, as JSON."""
    command = ["docker", "exec", "--interactive", f"{CLUSTER}-{CLIENTS}", "python3", "-c", program]
    run = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=timeout, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def exchange(
    entry: str, *pieces: bytes | tuple[float, bytes], source: str = HERE, port: int = 443, tls: bool = True, name: str = NAME, timeout: float = 30
) -> Answer:
    """Send bytes to an entry.

    Args:
        entry: Host to speak to.
        *pieces: What to send; a pair begins with the seconds to wait before.
        source: Address to speak from.
        port: Port to speak to.
        tls: Whether to speak TLS.
        name: Name to ask for, and to verify, in TLS.
        timeout: Seconds to wait for an answer.
    """
    job = {
        "address": ADDRESS[entry],
        "port": port,
        "tls": tls,
        "name": name,
        "source": source,
        "timeout": timeout,
        "pieces": [(pause, base64.b64encode(piece).decode()) for pause, piece in ((0, p) if isinstance(p, bytes) else p for p in pieces)],
    }
    result = inside(CONVERSATION, job, timeout + 60)
    parts = [(moment, base64.b64decode(part)) for moment, part in result["parts"]]
    return Answer(b"".join(part for _, part in parts), [moment for moment, _ in parts], result["failure"], result["seconds"])


def crowd(entry: str, seconds: float, lanes: int = 2, **clients: dict[str, Any]) -> dict[str, Tally]:
    """Have several clients ask an entry at the same time.

    Args:
        entry: Host to ask.
        seconds: How long.
        lanes: Connections of each client.
        **clients: For each, its ``pace`` in requests per second, and ``key``, ``source`` address and ``body`` if it has them.
    """
    plain: dict[str, Any] = {"key": "", "source": HERE, "body": ""}
    job = {
        "address": ADDRESS[entry],
        "name": NAME,
        "seconds": seconds,
        "lanes": lanes,
        "clients": {name: plain | client for name, client in clients.items()},
    }
    return {name: Tally([tuple(outcome) for outcome in outcomes]) for name, outcomes in inside(CROWD, job, seconds + 120).items()}


def log(host: Any, **wanted: object) -> list[dict[str, Any]]:
    """Give the entries of a host's access log that have these fields, newest last."""
    host.check_output("journalctl --sync")
    lines = host.check_output("journalctl --unit=nginx --output=cat --since=-10min").splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in entries if wanted.items() <= entry.items()]
