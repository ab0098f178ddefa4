"""The set as its clients and its operators see it, asked from inside the members."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.testing import rerun

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
CLUSTER = "mol-redis"
ADDRESS = {"redis1": "198.18.46.11", "redis2": "198.18.46.12", "redis3": "198.18.46.13"}
HOST = {address: host for host, address in ADDRESS.items()}

# Runs inside a member, as an application would: looks for the server that says role:master, writes, and keeps a ledger of what was acknowledged.
WRITER = """
import json, sys, time
sys.path.insert(0, "/usr/local/lib/sovereign")
from redis_client import Connection, RedisError
job = json.load(sys.stdin)

def master():
    for address in job["members"]:
        try:
            connection = Connection.tls(address, 6379, "dify", [job["password"]], timeout=1)
            if connection.info("replication")["role"] == "master":
                return connection
            connection.close()
        except (OSError, RedisError):
            pass
    return None

acknowledged, end, number, connection = [], time.monotonic() + job["seconds"], 0, None
while time.monotonic() < end:
    connection = connection or master()
    number += 1
    try:
        if connection and connection("SET", f"ledger:{number}", number) == "OK":
            acknowledged.append((number, time.monotonic()))
            time.sleep(0.002)
            continue
    except (OSError, RedisError):
        connection.close()
        connection = None
    time.sleep(0.05)
gaps = [later[1] - earlier[1] for earlier, later in zip(acknowledged, acknowledged[1:])]
print(json.dumps({"acknowledged": [n for n, _ in acknowledged], "gap": max(gaps), "begun": acknowledged[0][1], "ended": acknowledged[-1][1]}))
"""

# Runs inside a member: which of the ledger's keys the server that it is given lacks.
READER = """
import json, sys
sys.path.insert(0, "/usr/local/lib/sovereign")
from redis_client import Connection
job = json.load(sys.stdin)
with Connection.tls(job["address"], 6379, "dify", [job["password"]], timeout=5) as connection:
    lost = [number for number in job["numbers"] if connection("GET", f"ledger:{number}") != str(number)]
print(json.dumps(lost))
"""


def password(user: str) -> str:
    """Password of a user, as its owner was given it."""
    return (SCENARIO / "inventory/.state/secrets/redis" / user).read_text().strip()


def begin(host: str, program: str, **job: Any) -> subprocess.Popen[str]:
    """Start a program inside a member."""
    run = subprocess.Popen(
        ["docker", "exec", "--interactive", f"{CLUSTER}-{host}", "python3", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdin
    run.stdin.write(json.dumps(job))
    run.stdin.close()
    run.stdin = None
    return run


def result(run: subprocess.Popen[str], timeout: float = 120) -> Any:
    """Give what a program printed, as JSON."""
    out, _ = run.communicate(timeout=timeout)
    assert run.returncode == 0, out
    return json.loads(out)


def admin(on: Any, host: str, command: str) -> str:
    """Give an administrator's command to the services of a member."""
    return str(on(host).check_output(f"redis-admin --raw {command}"))


def role(on: Any, host: str) -> str:
    """What a server calls itself; empty if it does not answer."""
    run = on(host).run("redis-admin --raw role")
    return str(run.stdout).split("\n")[0] if run.rc == 0 else ""


def master(on: Any, *asked: str) -> str:
    """Host of the master, on which all Sentinels that are asked agree."""
    told = {admin(on, host, "sentinel get-master-addr-by-name mymaster").split("\n")[0] for host in asked or ADDRESS}
    assert len(told) == 1, told
    return HOST[told.pop()]


def until(true: Callable[[], bool], seconds: float) -> float:
    """Wait until something is so; give the seconds that it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        time.sleep(0.2)
    return time.monotonic() - begun


def processes(on: Any, unit: str = "redis-server") -> dict[str, str]:
    """Process of a service on each member."""
    return {host: str(on(host).check_output(f"systemctl show --property=MainPID --value {unit}")) for host in ADDRESS}


def play(*arguments: str, playbook: str = "converge.yml", **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the scenario's playbooks; it must succeed."""
    run = rerun(*arguments, playbook=playbook, **variables)
    assert run.returncode == 0, run.stdout + run.stderr
    return run
