"""Runs of Ansible and a busy connection through the tunnel, for the tests of this scenario."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.testing import rerun

Play = Callable[..., "subprocess.CompletedProcess[str]"]

ECHO = """
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", {port}), Echo).serve_forever()
"""

BEAT = """
import socket, time
lines = socket.create_connection(("198.19.22.11", 5001)).makefile("rw")
while True:
    print("x", file=lines, flush=True)
    lines.readline()
    open("/tmp/beats", "a").write("x")
    time.sleep(0.1)
"""


@pytest.fixture(scope="session")
def play() -> Play:
    """Run the scenario's playbook again, over some hosts, with tags and variables."""
    return lambda limit, tags, *options, **variables: rerun(f"--limit={limit}", f"--tags={tags}", *options, **variables)


@pytest.fixture(scope="session", autouse=True)
def listeners(on: Any) -> Iterator[None]:
    """On every host, echoes on ports declared for the VPN (5001), the LAN (5003), the LAN and the WAN (5004), and on an undeclared one (5002)."""
    names = ("hub1", "hub2", "spoke")
    ports = (5001, 5002, 5003, 5004)
    for name in names:
        for port in ports:
            on(name).check_output(f"systemd-run --unit=echo-{port} --collect python3 -c %s", ECHO.format(port=port))
    for name in names:
        for port in ports:
            listening = f"ss --listening --tcp --numeric --no-header sport = :{port} | grep -q LISTEN"
            on(name).check_output(f"timeout 10 sh -c 'until {listening}; do sleep 0.1; done'")
    yield
    for name in names:
        on(name).run("systemctl stop " + " ".join(f"echo-{port}" for port in ports))


@pytest.fixture(scope="module")
def stream(on: Any) -> Iterator[Callable[[], bool]]:
    """Keep one connection from the spoke to hub1 busy; tells whether that same connection still moves data."""
    # Not restarted by systemd: a cut connection ends it for good.
    on("spoke").check_output("rm -f /tmp/beats; systemd-run --unit=beat --collect python3 -c %s", BEAT)

    def alive() -> bool:
        beats = int(on("spoke").check_output("stat --format=%s /tmp/beats"))
        grows = f"until test $(stat --format=%s /tmp/beats) -gt {beats}; do sleep 0.1; done"
        return bool(on("spoke").run(f"timeout 15 sh -c '{grows}'").rc == 0)

    on("spoke").check_output("timeout 20 sh -c 'until test -s /tmp/beats; do sleep 0.1; done'")
    assert alive()
    yield alive
    on("spoke").run("systemctl stop beat")
