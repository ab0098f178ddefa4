"""Runs of Ansible and hosts that listen, for the tests of this scenario."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.testing import rerun

Play = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def play() -> Play:
    """Run the scenario's playbook again, with variables, on debian12."""
    return lambda tags, **variables: rerun("--limit=debian12", f"--tags={tags}", **variables)


@pytest.fixture(scope="session")
def wait_for_listener() -> Callable[[Any, int], None]:
    """Wait until something listens on a port of a host."""

    def wait(host: Any, port: int) -> None:
        listening = f"ss --listening --tcp --numeric --no-header sport = :{port} | grep -q LISTEN"
        host.check_output(f"timeout 10 sh -c 'until {listening}; do sleep 0.1; done'")

    return wait


@pytest.fixture(scope="session", autouse=True)
def listeners(on: Any, wait_for_listener: Callable[[Any, int], None]) -> Iterator[None]:
    """On debian12, programs that listen on every address of either family; what may reach them is the firewall's business."""
    ports = (8080, 8081, 8082, 8083, 8090)
    for port in ports:
        on("debian12").check_output(f"systemd-run --unit=listen-{port} --collect python3 -m http.server --bind :: {port}")
    for port in ports:
        wait_for_listener(on("debian12"), port)
    yield
    for port in ports:
        on("debian12").run(f"systemctl stop listen-{port}")


@pytest.fixture(scope="session")
def probe(on: Any) -> Callable[[str, str, int], str]:
    """Open a TCP connection from a host; give ``open`` or the name of the error, such as ``TimeoutError``."""

    def connect(source: str, address: str, port: int) -> str:
        attempt = f"socket.create_connection(('{address}', {port}), 2)"
        script = f"import socket\ntry: {attempt}; print('open')\nexcept OSError as error: print(type(error).__name__, error)"
        return str(on(source).check_output(f'python3 -c "{script}"'))

    return connect
