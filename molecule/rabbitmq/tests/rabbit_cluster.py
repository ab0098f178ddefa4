"""The cluster as its clients and its operators see it, asked from inside the members."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from lab.testing import rerun

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
CLUSTER = "mol-rabbitmq"
ADDRESS = {"rabbit1": "198.18.47.11", "rabbit2": "198.18.47.12", "rabbit3": "198.18.47.13"}
HOST = {f"rabbit@{address}": host for host, address in ADDRESS.items()}

# What every client begins with; `job` is what it is told.
CLIENT = """
import json, ssl, sys, time
import pika
job = json.load(sys.stdin)

def connect(address):
    context = ssl.create_default_context(cafile="/etc/sovereign/pki/ca.crt")
    if job.get("certificate", True):
        context.load_cert_chain("/etc/sovereign/pki/host.crt", "/etc/sovereign/pki/host.key")
    return pika.BlockingConnection(pika.ConnectionParameters(
        host=address, port=5671, virtual_host=job.get("vhost", "dify"), credentials=pika.PlainCredentials(job.get("user", "dify"), job["password"]),
        ssl_options=pika.SSLOptions(context, address) if job.get("tls", True) else None,
        socket_timeout=2, stack_timeout=5, blocked_connection_timeout=5, heartbeat=4, connection_attempts=1))
"""

# Says what happens to somebody who wants in.
VISITOR = (
    CLIENT
    + """
try:
    connect(job["address"]).close()
    print(json.dumps("welcome"))
except Exception as error:
    print(json.dumps(f"{type(error).__name__} {error!r} {error.__cause__!r}"))
"""
)

DECLARER = (
    CLIENT
    + """
connection = connect(job["address"])
connection.channel().queue_declare(job["queue"], durable=True)
connection.close()
print(json.dumps("declared"))
"""
)

# Publishes, goes to another node when one is gone, and keeps a ledger of what was confirmed.
PUBLISHER = (
    CLIENT
    + """
confirmed, number, channel, turn, end = [], 0, None, 0, time.monotonic() + job["seconds"]
while time.monotonic() < end:
    number += 1
    try:
        if channel is None:
            turn += 1
            channel = connect(job["members"][turn % len(job["members"])]).channel()
            channel.confirm_delivery()
        channel.basic_publish("", job["queue"], str(number).encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)
        confirmed.append((number, time.monotonic()))
        time.sleep(0.002)
    except Exception as error:
        channel = None
        time.sleep(0.05)
gaps = [later[1] - earlier[1] for earlier, later in zip(confirmed, confirmed[1:])]
print(json.dumps({"confirmed": [n for n, _ in confirmed], "gap": max(gaps), "seconds": confirmed[-1][1] - confirmed[0][1]}))
"""
)

CONSUMER = (
    CLIENT
    + """
channel, consumed = connect(job["address"]).channel(), []
while True:
    method, _, body = channel.basic_get(job["queue"])
    if method is None:
        break
    consumed.append(int(body))
    channel.basic_ack(method.delivery_tag)
print(json.dumps(consumed))
"""
)


def password(user: str) -> str:
    """Password of a user, as its owner was given it."""
    return (SCENARIO / "inventory/.state/secrets/rabbitmq" / user).read_text().strip()


def begin(host: str, program: str, **job: Any) -> subprocess.Popen[str]:
    """Start a client inside a member."""
    command = ["docker", "exec", "--interactive", f"{CLUSTER}-{host}", "python3", "-c", program]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdin
    run.stdin.write(json.dumps({"password": password("dify"), **job}))
    run.stdin.close()
    run.stdin = None
    return run


def result(run: subprocess.Popen[str], timeout: float = 120) -> Any:
    """Give what a client printed, as JSON."""
    out, _ = run.communicate(timeout=timeout)
    assert run.returncode == 0, out
    return json.loads(out)


def visit(**job: Any) -> str:
    """Say what happens to somebody on rabbit3 who wants into rabbit1."""
    return str(result(begin("rabbit3", VISITOR, address=ADDRESS["rabbit1"], **job)))


def queue(on: Any, host: str, name: str) -> dict[str, str]:
    """Type and leader of a queue."""
    listed = on(host).check_output("rabbitmqctl --quiet --timeout 15 list_queues --vhost dify --formatter json name type leader")
    return next({"type": item["type"], "leader": item["leader"]} for item in json.loads(listed) if item["name"] == name)


def running(on: Any, host: str) -> set[str]:
    """Nodes of the cluster that run, as one of them sees it."""
    listed = on(host).check_output("rabbitmqctl --quiet eval 'io:format(\"~p\", [rabbit_nodes:list_running()]).'")
    return {node for node in HOST if node in listed}


def processes(on: Any) -> dict[str, str]:
    """Process of each node."""
    return {host: str(on(host).check_output("systemctl show --property=MainPID --value rabbitmq-server")) for host in ADDRESS}


def play(*arguments: str, playbook: str = "converge.yml", **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the scenario's playbooks; it must succeed."""
    run = rerun(*arguments, playbook=playbook, **variables)
    assert run.returncode == 0, run.stdout + run.stderr
    return run
