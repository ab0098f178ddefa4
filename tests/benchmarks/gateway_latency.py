"""Measure what the model gateway adds to a request: ``python tests/benchmarks/gateway_latency.py [--rounds 5] [--requests 4000] [--nice -15]``.

Makes three containers (client, gateway, a model server that answers at once), plays the roles over them, and lets one client ask the server
directly and through the gateway in turns, over kept connections, TLS on every hop. Prints a table for each round and the best of them, because
other programs on the machine only ever add; ``--nice`` gives all three priority over them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "gateway"
INVENTORY = [f"--inventory={HERE / 'cluster.yml'}", f"--inventory={PROJECT / 'molecule/shared/substrate.yml'}"]
PREFIX = "bench-gateway"
BAR_P50, BAR_P99 = 0.15, 1.0

# Runs inside the client: two kept connections, asked in turns, so that whatever else the machine does falls on both alike.
CLIENT = """
import json, socket, ssl, sys, time
job = json.load(sys.stdin)
context = ssl.create_default_context(cafile="/etc/sovereign/pki/ca.crt")
context.load_cert_chain("/etc/sovereign/pki/host.crt", "/etc/sovereign/pki/host.key")
body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "x" * 400}]}).encode()
request = (f"POST /v1/chat/completions HTTP/1.1\\r\\nHost: bench\\r\\nAuthorization: Bearer {job['key']}\\r\\n"
           f"Content-Type: application/json\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n").encode() + body

def connect(name, address, port):
    raw = socket.create_connection((address, port), 10)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw, server_hostname=name)

def ask(connection):
    begun = time.perf_counter_ns()
    connection.sendall(request)
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(65536)
        if not part:
            sys.exit(f"closed: {answer}")
        answer += part
    taken = time.perf_counter_ns() - begun
    if not answer.startswith(b"HTTP/1.1 200"):
        sys.exit(answer.decode())
    return taken

paths = {name: connect(*place) for name, place in job["places"].items()}
for connection in paths.values():
    for _ in range(300):
        ask(connection)
times = {name: [] for name in paths}
for _ in range(job["requests"]):
    for name, connection in paths.items():
        times[name].append(ask(connection))
print(json.dumps(times))
"""


@dataclass(frozen=True)
class Round:
    """Percentiles of one round, in milliseconds: of the direct way, of the way through the gateway."""

    direct: dict[int, float]
    gateway: dict[int, float]

    def added(self, percentile: int) -> float:
        """Return what the gateway adds at a percentile."""
        return self.gateway[percentile] - self.direct[percentile]


def play(playbook: Path, **variables: str) -> None:
    """Run a playbook over the benchmark's containers."""
    command = ["ansible-playbook", *INVENTORY, f"--extra-vars={json.dumps(variables)}", str(playbook)]
    environment = {**os.environ, "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(PROJECT / ".cache/facts-bench-gateway")}
    run = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)


def percentiles(nanoseconds: list[int]) -> dict[int, float]:
    """Return the 50th, 90th and 99th percentile in milliseconds."""
    cuts = statistics.quantiles(nanoseconds, n=100)
    return {percentile: cuts[percentile - 1] / 1e6 for percentile in (50, 90, 99)}


def measure(requests: int, nice: int) -> Round:
    """Let the client ask both ways in turns."""
    places = {"direct": ("upstream.bench.test", "198.18.60.12", 8100), "gateway": ("gateway.bench.test", "198.18.60.11", 8443)}
    key = (HERE / ".state/secrets/model_gateway/bench").read_text().strip()
    job = json.dumps({"requests": requests, "key": key, "places": places})
    command = ["docker", "exec", "--interactive", f"{PREFIX}-client", "nice", f"--adjustment={nice}", "python3", "-c", CLIENT]
    run = subprocess.run(command, input=job, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    times = json.loads(run.stdout)
    return Round(percentiles(times["direct"]), percentiles(times["gateway"]))


def main() -> None:
    """Make the containers, measure, print, remove them."""
    parser = argparse.ArgumentParser(description="What the model gateway adds to a request")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--image", default="sovereign-dify-lab:trixie-packages")
    arguments = parser.parse_args()
    try:
        play(PROJECT / "molecule/shared/create.yml", substrate_image=arguments.image)
        play(HERE / "converge.yml", bench_nice=str(arguments.nice))
        time.sleep(3)  # until the gateway has checked the server
        version = subprocess.run(["docker", "exec", f"{PREFIX}-gateway", "haproxy", "-v"], capture_output=True, text=True, check=True)
        load = os.getloadavg()[0]
        rounds = [measure(arguments.requests, arguments.nice) for _ in range(arguments.rounds)]
    finally:
        play(PROJECT / "molecule/shared/destroy.yml")
    name = version.stdout.splitlines()[0].split(" - ")[0]
    print(f"{name}, {os.cpu_count()} CPUs, load {load:.1f}, nice {arguments.nice}; {arguments.requests} requests a way and round; milliseconds")
    print("           direct p50    p90    p99   gateway p50    p90    p99   added p50    p99")
    for number, one in enumerate(rounds, 1):
        columns = [*one.direct.values(), *one.gateway.values(), one.added(50), one.added(99)]
        widths = (14, 7, 7, 14, 7, 7, 12, 7)
        print(f"round {number:<2}" + "".join(f"{value:{width}.3f}" for value, width in zip(columns, widths, strict=True)))
    p50, p99 = min(one.added(50) for one in rounds), min(one.added(99) for one in rounds)
    verdict = "held" if p50 <= BAR_P50 and p99 <= BAR_P99 else "NOT HELD"
    print(f"best added: p50 {p50:.3f} ms (bar {BAR_P50}), p99 {p99:.3f} ms (bar {BAR_P99}): {verdict}")


if __name__ == "__main__":
    main()
