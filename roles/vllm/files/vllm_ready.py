"""Wait until a vLLM instance really answers: systemd calls the unit active only after this has succeeded.

``/health`` is no proof: it answers while the engine is dead, and a server of another model that still holds the port answers it too. So this waits
until a process of this very unit listens on the port, checks that it serves the expected model and no other, and asks for one token. The first
answer may take minutes, because the engine warms up on it; later ones may not.

Of an instance over several hosts, only the first host's server answers. The others are ready when they have joined it; that all together answer is
what the first one waits for.

Run by ``ExecStartPost=``; the standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

ESTABLISHED, LISTENING = "01", "0A"
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
POLL_S = 1.0
IPV4 = 4
# Of several tokens: vLLM's CPU build (0.32) on a processor with AMX dies of a first prompt of one, for which its attention computes in tiles that
# the kernel gives only to those who have asked; a longer one is multiplied by oneDNN first, which asks, once for the life of the process.
TEXT = "Is anybody there who can answer?"
# Before all users, whose requests bear -10 or more: one token delays nobody, and a server that works off a queue is not one that hangs.
PRIORITY = -11
# What each kind of model answers: generation, and pooling (embeddings and the like).
QUESTIONS = (
    ("/v1/completions", {"prompt": TEXT, "max_tokens": 1, "temperature": 0}),
    ("/v1/embeddings", {"input": TEXT}),
    ("/pooling", {"input": TEXT}),
)

RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting")
# What only the engine's own reports change.
REPORTED = re.compile(
    r"vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|prompt_tokens_total|generation_tokens_total"
    r"|num_preemptions_total|request_success_total|iteration_tokens_total_count)$"
)
SAMPLE = re.compile(r"^([\w:]+)(\{.*\})? (\S+)$", re.MULTILINE)


class StartingError(Exception):
    """It does not accept requests yet; ask again."""


class CanaryError(Exception):
    """It accepts requests, but this one failed; ask again, not for ever."""


class HopelessError(Exception):
    """Asking again is no use."""


@dataclass(frozen=True)
class Server:
    """Where the instance listens and how it is spoken to.

    Attributes:
        address: Address it listens on.
        port: Its port.
        name: Name that its certificate is verified against.
        context: TLS with the client certificate; nothing for plain HTTP.
    """

    address: str
    port: int
    name: str
    context: ssl.SSLContext | None

    def ask(self, method: str, path: str, body: dict[str, Any] | None, timeout: float) -> tuple[int, Any]:
        """Send one request.

        Returns:
            Status and body, parsed if it is JSON.

        Raises:
            OSError: If there is no answer; ``TimeoutError`` if it takes too long.
        """
        connection = http.client.HTTPConnection(self.name, self.port, timeout=timeout)
        try:
            raw = socket.create_connection((self.address, self.port), timeout)
            connection.sock = self.context.wrap_socket(raw, server_hostname=self.name) if self.context else raw
            payload = json.dumps(body) if body is not None else None
            connection.request(method, path, body=payload, headers={"Content-Type": "application/json", "X-Vllm-Priority": str(PRIORITY)})
            response = connection.getresponse()
            text = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"no proper HTTP: {error!r}") from error
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text.decode(errors="replace")


@dataclass(frozen=True)
class Report:
    """What an engine last said of itself.

    Attributes:
        values: Each value by its name and labels.
        requests: How many run or wait.
    """

    values: dict[str, str]
    requests: int


def read_report(text: str) -> Report:
    """Read what the engine has reported out of the server's metrics, in Prometheus' text format."""
    values = {name + labels: value for name, labels, value in SAMPLE.findall(text) if REPORTED.match(name)}
    return Report(values, sum(int(float(value)) for name, value in values.items() if name.partition("{")[0] in RUNNING))


def environment_of(model: str, run: Path = Path("/run/vllm")) -> dict[str, str]:
    """Read the environment that a running instance was started with."""
    text = (run / model / f"{model}.env").read_text()
    return {name: value.strip('"') for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)}


def client_context(directory: Path) -> ssl.SSLContext:
    """Make the TLS of a client out of a directory with ``ca.crt``, ``host.crt`` and ``host.key``."""
    context = ssl.create_default_context(cafile=directory / "ca.crt")
    context.load_cert_chain(directory / "host.crt", directory / "host.key")
    return context


def listening_inodes(address: str, port: int, tables: tuple[Path, ...] = TABLES) -> set[str]:
    """Find the sockets that listen on a port of this host, on this address or on all."""
    wanted = {_as_in_table(address), "0" * 8, "0" * 32}
    found = set()
    for fields in _sockets(tables):
        local, dummy, local_port = fields[1].partition(":")
        if fields[3] == LISTENING and int(local_port, 16) == port and local in wanted:
            found.add(fields[9])
    return found


def connected_inodes(address: str, tables: tuple[Path, ...] = TABLES) -> set[str]:
    """Find the sockets that have a connection with another host."""
    # A socket of both families shows an IPv4 address as an IPv6 one.
    wanted = {_as_in_table(address)} | ({_as_in_table(f"::ffff:{address}")} if ip_address(address).version == IPV4 else set())
    return {fields[9] for fields in _sockets(tables) if fields[3] == ESTABLISHED and fields[2].partition(":")[0] in wanted}


def _sockets(tables: tuple[Path, ...]) -> Iterator[list[str]]:
    """Give the fields of each line of the kernel's tables of sockets: local and other address, state and inode are the fields 1, 2, 3 and 9."""
    for table in tables:
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            yield line.split()


def _as_in_table(address: str) -> str:
    """Write an address as the kernel's table does: words of 32 bits in the machine's byte order, in hexadecimal."""
    packed = ip_address(address).packed
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def processes_of_unit(proc: Path = Path("/proc")) -> Iterator[Path]:
    """Give the processes in the same control group as this one: those of the unit."""
    return processes_in(_control_group(proc / "self"), proc)


def processes_in(group: str, proc: Path = Path("/proc")) -> Iterator[Path]:
    """Give the processes of a control group, by what systemd calls it."""
    for process in proc.iterdir():
        if process.name.isdigit():
            try:
                if _control_group(process) == group:
                    yield process
            except OSError:
                continue


def _control_group(process: Path) -> str:
    """Name the control group that systemd has put a process into.

    systemd may put the commands of ``ExecStartPost=`` into a group below the unit's, ``.control``; that still is the unit.
    """
    lines = (process / "cgroup").read_text().splitlines()
    named = [line.split(":", 2)[2] for line in lines if line.split(":", 2)[1] in {"", "name=systemd"}]
    return max(named, key=len, default="").removesuffix("/.control")


def unit_listens(address: str, port: int, proc: Path = Path("/proc")) -> bool:
    """Tell whether a process of this unit listens there."""
    return any_holds(processes_of_unit(proc), listening_inodes(address, port))


def any_holds(processes: Iterable[Path], inodes: set[str]) -> bool:
    """Tell whether any of these processes (in ``/proc``) has any of these sockets."""
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for process in processes if sockets else ():
        try:
            if any(str(link.readlink()) in sockets for link in (process / "fd").iterdir()):
                return True
        except OSError:
            continue
    return False


def check(server: Server, model: str, warm_up_s: float) -> str:
    """Ask once for everything that makes an instance ready.

    Returns:
        What was seen, for the journal.

    Raises:
        StartingError: If it does not accept requests yet.
        CanaryError: If a request failed.
        HopelessError: If it serves something else, or knows none of our questions.
    """
    try:
        status, body = server.ask("GET", "/v1/models", None, timeout=10)
    except OSError as error:
        raise StartingError(str(error)) from error
    if status != http.client.OK:
        raise CanaryError(f"/v1/models answers {status}")
    served = [entry["id"] for entry in body["data"]]
    if served != [model]:
        raise HopelessError(f"it serves {served} instead of {[model]}")
    for path, question in QUESTIONS:
        started = time.monotonic()
        try:
            status, body = server.ask("POST", path, {"model": model, **question}, timeout=warm_up_s)
        except OSError as error:
            raise CanaryError(f"{path} gives no answer: {error}") from error
        if status == http.client.OK:
            if body.get("model") != model:
                raise HopelessError(f"{path} is answered by {body.get('model')!r}")
            return f"{path} answered in {time.monotonic() - started:.2f} s"
        if status != http.client.NOT_FOUND and "does not support" not in str(body):
            raise CanaryError(f"{path} answers {status}: {body}")
    raise HopelessError("it answers neither completions nor embeddings nor pooling")


def wait(server: Server, model: str, warm_up_s: float, canaries: int, main_process: Path) -> str:
    """Wait until the instance is ready. How long it may take to start is systemd's affair (``TimeoutStartSec=``).

    Args:
        server: The instance.
        model: Name that it must serve.
        warm_up_s: Longest wait for the canary, in seconds.
        canaries: How many may fail before it is given up.
        main_process: The server's process in ``/proc``. While this waits, systemd does not look after it.

    Returns:
        What was seen, for the journal.

    Raises:
        HopelessError: If it is given up.
    """
    started = time.monotonic()
    failed = 0
    while main_process.exists():
        try:
            if unit_listens(server.address, server.port):
                return f"{model} is ready after {time.monotonic() - started:.0f} s: {check(server, model, warm_up_s)}"
        except StartingError:
            pass
        except CanaryError as error:
            failed += 1
            print(f"{model} is not ready ({failed} of {canaries}): {error}", flush=True)
            if failed >= canaries:
                raise HopelessError(f"{canaries} canaries failed, the last one so: {error}") from error
        time.sleep(POLL_S)
    raise HopelessError("its server has ended")


def wait_idle(server: Server, timeout: float) -> str:
    """Wait until no request runs or waits any more.

    Raises:
        HopelessError: If some still do when the time, in seconds, is over.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            status, text = server.ask("GET", "/metrics", None, timeout=10)
        except OSError as error:
            return f"nobody answers any more: {error}"
        requests = read_report(str(text)).requests if status == http.client.OK else -1
        if not requests:
            return "no request runs"
        if time.monotonic() > end:
            raise HopelessError(f"after {timeout:.0f} s, {requests} requests still run or wait")
        time.sleep(POLL_S)


def wait_joined(leader: str, main_process: Path) -> str:
    """Wait until a process of this unit has a connection with the host that leads the instance.

    Raises:
        HopelessError: If its server has ended.
    """
    started = time.monotonic()
    while main_process.exists():
        if any_holds(processes_of_unit(), connected_inodes(leader)):
            return f"it has joined {leader} after {time.monotonic() - started:.0f} s"
        time.sleep(POLL_S)
    raise HopelessError("its server has ended")


def main(arguments: list[str]) -> int:
    """Read the arguments, wait.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description="Wait until a vLLM instance really answers.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, default=0, help="its port; if it is not given, that of the instance that runs")
    parser.add_argument("--name", required=True, help="name that the certificate is verified against")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tls", type=Path, help="directory with ca.crt, host.crt and host.key; plain HTTP without it")
    parser.add_argument("--warm-up", type=float, default=120.0, help="longest wait for the canary, in seconds")
    parser.add_argument("--once", action="store_true", help="ask once, from anywhere on this host, instead of waiting")
    parser.add_argument("--canaries", type=int, default=3, help="canaries that may fail")
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="wait until no request runs any more, instead")
    parser.add_argument("--leader", default="", help="address of the host that answers for an instance over several, if it is not this one")
    options = parser.parse_args(arguments)
    try:
        port = options.port or int(environment_of(options.model)["SOVEREIGN_PORT"])
    except (OSError, KeyError) as error:
        print(f"{options.model} does not run: {error}", flush=True)
        return 0 if options.idle else 1
    server = Server(options.address, port, options.name, client_context(options.tls) if options.tls else None)
    try:
        if options.idle:
            seen = wait_idle(server, options.idle)
        elif options.leader:
            seen = wait_joined(options.leader, Path("/proc") / os.environ["MAINPID"])
        elif options.once:
            seen = check(server, options.model, options.warm_up)
        else:
            seen = wait(server, options.model, options.warm_up, options.canaries, Path("/proc") / os.environ["MAINPID"])
        print(seen, flush=True)
    except (StartingError, CanaryError, HopelessError) as error:
        print(f"{options.model} is not ready: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
