"""Questions to the gateways, asked from inside the hosts of this scenario, byte by byte where that matters."""

from __future__ import annotations

import base64
import csv
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.testing import Contract, host_variables

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
CLUSTER = "mol-model-gateway"
VPN_PORT = 8444
EXECUTE = ("docker", "exec", "--interactive")
# Pools and servers that each gateway must find.
SERVERS = {
    "hq-gw1": [("model_assistant", "hq-gw1"), ("model_assistant", "hq-gw2"), ("model_risk-scoring", "hq-gw1"), ("model_ledger", "hq-gw1")],
    "hq-gw2": [("model_assistant", "hq-gw1"), ("model_assistant", "hq-gw2"), ("model_risk-scoring", "hq-gw1"), ("model_ledger", "hq-gw1")],
    "edge-gw1": [("remote_assistant", "hq-gw1"), ("remote_assistant", "hq-gw2"), ("model_faq", "edge-gw1")],
}

# Runs inside a host: opens a TLS connection, sends what it is told piece by piece, and notes meanwhile when each part of the answer comes.
CLIENT = """
import base64, json, socket, ssl, sys, time
job = json.load(sys.stdin)
context = ssl.create_default_context(cafile="/etc/sovereign/pki/ca.crt")
context.load_verify_locations("/etc/sovereign/pki/peers.crt")
if job["certificate"]:
    context.load_cert_chain("/etc/sovereign/pki/host.crt", "/etc/sovereign/pki/host.key")
begun = time.monotonic()
parts, failure = [], ""

def read(until):
    '''Read until a moment; return whether the other end has closed the connection.'''
    while (left := until - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            part = connection.recv(65536)
        except TimeoutError:
            return False
        if not part:
            return True
        parts.append((time.monotonic() - begun, base64.b64encode(part).decode()))
    return False

try:
    raw = socket.create_connection((job["address"], job["port"]), job["timeout"], (job["source"], 0) if job["source"] else None)
    connection = context.wrap_socket(raw, server_hostname=job["name"])
    closed = False
    for pause, piece in job["pieces"]:
        closed = closed or read(time.monotonic() + pause)
        if not closed:
            connection.settimeout(job["timeout"])
            connection.sendall(base64.b64decode(piece))
    if not closed and not read(time.monotonic() + (job["leave"] or job["timeout"])) and not job["leave"]:
        failure = "TimeoutError"
except OSError as error:
    failure = type(error).__name__
print(json.dumps({"parts": parts, "failure": failure, "seconds": time.monotonic() - begun}))
"""


@dataclass(frozen=True)
class Answer:
    """What came back over one connection.

    Attributes:
        raw: All bytes.
        moments: When each part arrived, in seconds since the connection was begun.
        failure: Name of the exception that ended the connection; empty if the gateway closed it.
        seconds: How long the connection lived.
    """

    raw: bytes
    moments: list[float]
    failure: str
    seconds: float

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


def key_of(client: str) -> str:
    """Key of a client, as its owner was given it."""
    return (SCENARIO / "inventory/.state/secrets/model_gateway" / client).read_text().strip()


def chat(model: object, **fields: object) -> bytes:
    """Body of a chat request."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def http(
    body: bytes, *, key: str | None = None, path: str = "/v1/chat/completions", method: str = "POST", headers: str = "", close: bool = True
) -> bytes:
    """One request, as bytes."""
    lines = f"{method} {path} HTTP/1.1\r\nHost: gateway\r\n{headers}"
    lines += f"Authorization: Bearer {key}\r\n" if key else ""
    lines += "Connection: close\r\n" if close else ""
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def exchange(
    source: str,
    target: str,
    *pieces: bytes | tuple[float, bytes],
    vpn: bool = False,
    certificate: bool = False,
    from_address: str = "",
    port: int = 0,
    leave: float = 0,
    timeout: float = 90,
) -> Answer:
    """Send bytes from a host to a gateway.

    Args:
        source: Host to speak from.
        target: Host whose gateway is spoken to.
        *pieces: What to send; a pair begins with the seconds to wait before.
        vpn: Whether to speak to the listener for peers, from the VPN address and with the host's certificate.
        certificate: Whether to show the host's certificate all the same.
        from_address: Address to speak from, instead of the one that `vpn` implies.
        port: Port to speak to, instead of the one that `vpn` implies.
        leave: Seconds after which to close the connection, answered or not; 0 to wait for the other end.
        timeout: Seconds to wait for an answer.
    """
    node = {name: variables["node"] for name, variables in host_variables().items()}
    job = {
        "address": node[target]["vpn_address" if vpn or port == VPN_PORT else "address"],
        "port": port or (VPN_PORT if vpn else 8443),
        "name": node[target]["fqdn"],
        "source": from_address or (node[source]["vpn_address"] if vpn else ""),
        "certificate": vpn or certificate,
        "timeout": timeout,
        "leave": leave,
        "pieces": [(pause, base64.b64encode(piece).decode()) for pause, piece in ((0, p) if isinstance(p, bytes) else p for p in pieces)],
    }
    program = ["docker", "exec", "--interactive", f"{CLUSTER}-{source}", "python3", "-c", CLIENT]
    run = subprocess.run(program, input=json.dumps(job), capture_output=True, text=True, timeout=timeout + 60, check=True)
    result = json.loads(run.stdout)
    parts = [(moment, base64.b64decode(part)) for moment, part in result["parts"]]
    return Answer(b"".join(part for _, part in parts), [moment for moment, _ in parts], result["failure"], result["seconds"])


def inside(host: str, *command: str, timeout: float = 60) -> str:
    """Run a command inside a host and return what it prints."""
    run = subprocess.run(["docker", "exec", f"{CLUSTER}-{host}", *command], capture_output=True, text=True, timeout=timeout, check=False)
    assert run.returncode == 0, (host, command, run.stdout, run.stderr)
    return run.stdout


def counters(host: str, model: str) -> dict[str, int]:
    """Return what the stand-in of a model on a host has counted."""
    node: Contract = host_variables()[host]["node"]
    port = next(instance["port"] for instance in node["models"] if instance["name"] == model)
    pki = "/etc/sovereign/pki"
    metrics = inside(
        host,
        *("curl", "--silent", "--show-error", "--cacert", f"{pki}/ca.crt", "--cert", f"{pki}/host.crt", "--key", f"{pki}/host.key"),
        *("--resolve", f"{node['fqdn']}:{port}:{node['address']}", f"https://{node['fqdn']}:{port}/metrics"),
    )
    counted = dict(line.rsplit(" ", 1) for line in metrics.splitlines())
    names = {"running": f'vllm:num_requests_running{{model_name="{model}"}}'} | {
        name: f"stub_{name}_total" for name in ("requests", "completed", "aborted")
    }
    return {name: int(counted[series]) for name, series in names.items()}


def statuses(gateway: str) -> dict[tuple[str, str], str]:
    """Return the status of each server in a gateway's eyes, by pool and server; nothing while the gateway does not run."""
    page = subprocess.run(
        [*EXECUTE, f"{CLUSTER}-{gateway}", "curl", "--silent", "http://127.0.0.1:8405/;csv"], capture_output=True, text=True, check=False
    )
    rows = csv.DictReader(page.stdout.removeprefix("# ").splitlines())
    return {(row["pxname"], row["svname"]): row["status"] for row in rows}


def wait_until(condition: Callable[[], bool], what: str, limit: float) -> float:
    """Wait for a condition and return the seconds it took; fail with its name when it does not come."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < limit, f"not within {limit} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - begun


def wait_for_servers(limit: float) -> None:
    """Wait until each gateway has seen its servers alive."""

    def found(gateway: str) -> bool:
        seen = statuses(gateway)
        return all(seen.get(server) == "UP" for server in SERVERS[gateway])

    for gateway in SERVERS:
        wait_until(lambda gateway=gateway: found(gateway), f"{gateway} has found its servers", limit)
