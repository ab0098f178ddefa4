"""Who listens on a port: what ``ss`` prints, who owns the process, and what stands in a role's way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load
from ansible_collections.sovereign.dify.plugins.module_utils.port_owners import Listener, foreign, parse, unit_of

from tests.unit.inventory.cases import EXAMPLE, HERE
from tests.unit.role_variables import PROJECT, rendered, role_variables

DIFY = (HERE / "good/dify/cluster.yml").read_text(encoding="utf-8")

# Printed by iproute2 6.1 and 6.15, without its padding; the second line is a socket that systemd holds for its service.
SS = """\
LISTEN 0 511 198.18.1.61:6379 0.0.0.0:* users:(("redis-server",pid=812,fd=6))
LISTEN 0 4096 198.18.1.61:4369 0.0.0.0:* users:(("epmd",pid=640,fd=3),("systemd",pid=1,fd=51))
LISTEN 0 244 127.0.0.1:5432 0.0.0.0:* users:(("postgres",pid=900,fd=6))
LISTEN 0 4096 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=300,fd=19))
LISTEN 0 511 *:80 *:* users:(("apache2",pid=77,fd=4),("apache2",pid=70,fd=4))
LISTEN 0 4096 [::1]:6010 [::]:* users:(("sshd: admin@pts/0",pid=4000,fd=9))
LISTEN 0 64 0.0.0.0:2049 0.0.0.0:*
LISTEN 0 1 [fe80::1]%eth0:9000 [::]:* users:(("nc \\"-l\\"",pid=4711,fd=3))
"""
UNITS = {812: "redis-server.service", 640: "epmd.service", 900: "postgresql@15-main.service", 77: "apache2.service"}


def found() -> list[Listener]:
    return parse(SS, lambda pid: UNITS.get(pid, ""))


def test_what_ss_prints_is_understood() -> None:
    assert found() == [
        Listener("198.18.1.61", 6379, "redis-server", 812, "redis-server.service"),
        Listener("198.18.1.61", 4369, "epmd", 640, "epmd.service"),
        Listener("127.0.0.1", 5432, "postgres", 900, "postgresql@15-main.service"),
        Listener("127.0.0.53", 53, "systemd-resolve", 300),
        Listener("*", 80, "apache2", 77, "apache2.service"),
        Listener("::1", 6010, "sshd: admin@pts/0", 4000),
        Listener("0.0.0.0", 2049),  # noqa: S104 - compared, not bound
        Listener("fe80::1", 9000, 'nc \\"-l\\"', 4711),
    ]
    assert [str(listener) for listener in found()[-3:]] == [
        "[::1]:6010 is held by sshd: admin@pts/0 (pid 4000, of no unit)",
        "0.0.0.0:2049 is held by the kernel",
        '[fe80::1]:9000 is held by nc \\"-l\\" (pid 4711, of no unit)',
    ]


@pytest.mark.parametrize(
    ("address", "port", "units", "in_the_way"),
    [
        ("198.18.1.61", 6379, ["redis-*.service"], []),
        ("198.18.1.61", 6379, ["valkey.service"], [812]),
        # Another address of the host, and another port of the same.
        ("127.0.0.1", 6379, [], []),
        ("198.18.1.61", 5432, ["patroni.service"], []),
        ("127.0.0.1", 5432, ["patroni.service"], [900]),
        # Whoever listens everywhere is in everybody's way, and everybody in theirs.
        ("198.18.1.61", 80, ["nginx.service"], [77]),
        ("::", 80, ["nginx.service"], [77]),
        ("0.0.0.0", 5432, [], [900]),  # noqa: S104 - compared, not bound
        ("::", 5432, [], []),
        ("198.18.1.61", 2049, [], [0]),
        ("fd00::61", 2049, [], []),
        ("::ffff:198.18.1.61", 6379, [], [812]),
        ("0:0:0:0:0:0:0:1", 6010, [], [4000]),
    ],
)
def test_what_is_in_the_way(address: str, port: int, units: list[str], in_the_way: list[int]) -> None:
    wanted: list[dict[str, Any]] = [{"address": address, "ports": [port, 1]}, {"address": "127.0.0.1", "ports": []}]
    assert [listener.pid for listener in foreign(found(), wanted, units)] == in_the_way


@pytest.mark.parametrize(
    ("groups", "unit"),
    [
        ("0::/system.slice/redis-server.service\n", "redis-server.service"),
        ("0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n", "postgresql@15-main.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/minio.service\n", "minio.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("0::/system.slice/dify_api_1.service/libpod-payload-af03\n", "dify_api_1.service"),
        ("12:pids:/docker/af03\n1:name=systemd:/docker/af03/system.slice/nginx.service\n", "nginx.service"),
        ("0::/init.scope\n", "init.scope"),
        ("0::/\n", ""),
    ],
)
def test_the_unit_of_a_process(tmp_path: Path, groups: str, unit: str) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42/cgroup").write_text(groups)
    assert unit_of(42, tmp_path) == unit
    assert unit_of(43, tmp_path) == "", "gone in the meantime"


def ask(tmp_path: Path, *listen: dict[str, Any], units: tuple[str, ...] = ("ours.service",)) -> dict[str, Any]:
    """Run the module with an ``ss`` that prints the output above."""
    (tmp_path / "ss").write_text(f"#!/bin/sh\ncat <<'END'\n{SS}END\n", encoding="utf-8")
    (tmp_path / "ss").chmod(0o755)
    arguments = {"ANSIBLE_MODULE_ARGS": {"listen": list(listen), "units": list(units)}}
    run = subprocess.run(
        [sys.executable, "-m", "ansible_collections.sovereign.dify.plugins.modules.port_owners"],
        input=json.dumps(arguments),
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def test_the_module_names_every_socket_and_what_to_do(tmp_path: Path) -> None:
    answer = ask(tmp_path, {"address": "198.18.1.61", "ports": [6379, 80, 81]})
    assert answer["failed"]
    assert answer["msg"].startswith("198.18.1.61:6379 is held by redis-server (pid 812, ")
    assert "*:80 is held by apache2 (pid 77, " in answer["msg"]
    assert "Stop and disable what listens there" in answer["msg"]
    answer = ask(tmp_path, {"address": "198.18.1.61", "ports": [7000]})
    answer.pop("invocation", None)  # Ansible's own, until 2.21 unasked
    assert answer == {"changed": False}


def test_every_role_that_opens_a_port_asks_and_names_its_own_units() -> None:
    """A role opens a port where it has the firewall let clients in."""
    asking, opening = set(), set()
    for role in sorted((PROJECT / "roles").iterdir()):
        tasks = yaml.safe_load((role / "tasks/preflight.yml").read_text(encoding="utf-8")) if (role / "tasks/preflight.yml").exists() else []
        if any("sovereign.dify.port_owners" in task for task in tasks):
            asking.add(role.name)
        if "chain: input" in (text := (role / "vars/main.yml").read_text(encoding="utf-8") if (role / "vars/main.yml").exists() else "") or (
            "'chain': 'input', 'protocol': 'tcp'" in text
        ):
            opening.add(role.name)
    # Pgpool-II and service_proxy serve their own host alone; WireGuard's port is the kernel's, and keepalived has none.
    assert asking == (opening | {"pgpool", "service_proxy"}) - {"wireguard", "keepalived"}


GATEWAY = [
    {"address": "198.18.1.11", "ports": [8443]},
    {"address": "127.0.0.1", "ports": [8443, 8405]},
    {"address": "198.19.0.11", "ports": [8444]},
]


@pytest.mark.parametrize(
    ("role", "host", "listen"),
    [
        ("etcd", "hq-db1", [{"address": "198.18.1.41", "ports": [2379, 2380]}, {"address": "127.0.0.1", "ports": [2381]}]),
        ("patroni", "hq-db1", [{"address": "198.18.1.41", "ports": [5432, 8008]}]),
        ("pgbouncer", "hq-db1", [{"address": "198.18.1.41", "ports": [6432]}]),
        ("pgpool", "hq-app1", [{"address": "127.0.0.1", "ports": [5434]}]),
        ("redis", "hq-db1", [{"address": "198.18.1.41", "ports": [6379, 26379]}]),
        ("rabbitmq", "hq-db1", [{"address": "198.18.1.41", "ports": [5671, 25672]}, {"address": "127.0.0.1", "ports": [15692]}]),
        (
            "object_storage",
            "hq-db1",
            [{"address": "198.18.1.41", "ports": [6280, 6200, 6201, 6202, 6203]}, {"address": "127.0.0.1", "ports": [8408]}],
        ),
        ("model_gateway", "hq-gw1", [*GATEWAY[:2], {"address": "127.0.0.1", "ports": []}]),
        ("model_gateway", "edge-gw1", [{**GATEWAY[0], "address": "198.18.2.11"}, GATEWAY[1], {**GATEWAY[2], "address": "198.19.0.21"}]),
        ("vllm", "hq-gpu1", [{"address": "198.18.1.31", "ports": [8620, 8565]}]),
        (
            "nginx",
            "hq-gw1",
            [{"address": "127.0.0.1", "ports": [8406]}, {"address": "0.0.0.0", "ports": [443]}, {"address": "::", "ports": [443]}],  # noqa: S104
        ),
        (
            "service_proxy",
            "hq-app1",
            [{"address": "127.0.0.1", "ports": [5432, 5433, 6379, 5672, 9000, 9001]}, {"address": "127.0.0.1", "ports": [8407]}],
        ),
        (
            "dify",
            "hq-app1",
            [{"address": "127.0.0.1", "ports": [5001, 5003, 9445]}, {"address": "198.18.1.51", "ports": [9441, 9442, 9443, 9444, 9446]}],
        ),
    ],
)
def test_what_each_role_asks_for(tmp_path: Path, role: str, host: str, listen: list[dict[str, Any]]) -> None:
    cluster = DIFY if host in load(DIFY, "/somewhere/cluster.yml").nodes else EXAMPLE
    variables = role_variables(role, cluster, host, str(tmp_path / "cluster.yml"))
    variables |= {"inventory_hostname": host, "ansible_facts": {"ansible_local": {}}, "ansible_check_mode": False}
    tasks = yaml.safe_load((PROJECT / "roles" / role / "tasks/preflight.yml").read_text(encoding="utf-8"))
    (asked,) = [task["sovereign.dify.port_owners"] for task in tasks if "sovereign.dify.port_owners" in task]
    found = rendered(asked["listen"], variables)
    for place in found:
        place["ports"] = [int(port) for port in place["ports"]]
    assert found == listen


def test_a_real_listener_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            text = subprocess.run(["ss", "-H", "-t", "-l", "-p", "-n"], capture_output=True, text=True, check=True).stdout
        except FileNotFoundError:
            pytest.skip("no ss here")
        port = server.getsockname()[1]
        (listener,) = foreign(parse(text, unit_of), [{"address": "127.0.0.1", "ports": [port]}], ["ours.service"])
        assert (listener.address, listener.pid) == ("127.0.0.1", os.getpid())
