"""What runs before and after a container: waiting until it answers, and until its requests have ended."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.role_program import load

READY, DRAIN = load("dify", "dify_ready"), load("dify", "dify_drain")


@pytest.fixture
def page() -> Iterator[Callable[[list[int]], str]]:
    """Serve statuses, one after another and then the last for ever; give the address."""
    servers = []

    def serve(statuses: list[int]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer."""
                self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/health"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def wait(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(READY, "PAUSE", 0.02)
    monkeypatch.setattr(sys, "argv", ["dify_ready.py", *options])
    return int(READY.main())


def test_a_server_that_is_late_is_waited_for(page: Callable[[list[int]], str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait(monkeypatch, "--timeout=5", "--url", page([503, 503, 200])) == 0
    assert wait(monkeypatch, "--timeout=5", "--url", page([404])) == 0


def test_one_that_fails_for_ever_is_given_up(page: Callable[[list[int]], str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait(monkeypatch, "--timeout=0.2", "--url", page([500])) == 1
    assert wait(monkeypatch, "--timeout=0.2", "--url", "http://127.0.0.1:9/") == 1


def test_one_whose_process_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setenv("MAINPID", str(ended.pid))
    assert wait(monkeypatch, "--timeout=60", "--url", "http://127.0.0.1:9/") == 1


def test_a_connection_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert wait(monkeypatch, "--timeout=5", "--listens", address) == 0
    assert wait(monkeypatch, "--timeout=0.2", "--listens", address) == 1


class Haproxy:
    """HAProxy's runtime socket."""

    def __init__(self, path: Path) -> None:
        """Listen."""
        self.said: list[str] = []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                channel, _ = self.server.accept()
            except OSError:
                return
            with channel:
                self.said.append(channel.recv(4096).decode().strip())


@pytest.fixture
def requests() -> Iterator[tuple[int, list[socket.socket]]]:
    """Open connections to a server of this host; give its port and their clients' ends."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        clients = [socket.create_connection(server.getsockname()) for dummy in range(3)]
        # Somebody else's.
        clients.append(socket.create_connection(other.getsockname()))
        accepted = [server.accept()[0] for dummy in range(3)] + [other.accept()[0]]
        yield server.getsockname()[1], clients[:3]
        for end in [*clients, *accepted]:
            end.close()


def drain(monkeypatch: pytest.MonkeyPatch, path: Path, *options: str, port: int = 9) -> int:
    monkeypatch.setattr(DRAIN, "PAUSE", 0.02)
    command = ["dify_drain.py", "--socket", str(path), "--server", "dify_api_1", f"--port={port}", "--backends", "api", "api_internal", *options]
    monkeypatch.setattr(sys, "argv", command)
    return int(DRAIN.main())


def test_requests_of_the_process_end_before_it_and_nobody_elses_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: tuple[int, list[socket.socket]]
) -> None:
    haproxy = Haproxy(tmp_path / "admin.sock")
    port, clients = requests
    looks: list[int] = []
    count = DRAIN.connections

    def one_ends_at_each_look(port: int) -> int:
        looks.append(count(port))
        if clients:
            clients.pop().close()
        return looks[-1]

    monkeypatch.setattr(DRAIN, "connections", one_ends_at_each_look)
    assert drain(monkeypatch, tmp_path / "admin.sock", "--timeout=5", port=port) == 0
    assert haproxy.said == ["set server api/dify_api_1 state drain", "set server api_internal/dify_api_1 state drain"]
    assert looks == [3, 2, 1, 0]
    haproxy.server.close()


def test_what_does_not_end_is_cut_off_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], requests: tuple[int, list[socket.socket]]
) -> None:
    haproxy = Haproxy(tmp_path / "admin.sock")
    assert drain(monkeypatch, tmp_path / "admin.sock", "--timeout=0.1", port=requests[0]) == 0
    assert "3 requests are cut off" in capsys.readouterr().err
    haproxy.server.close()


def test_it_comes_back_into_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    haproxy = Haproxy(tmp_path / "admin.sock")
    assert drain(monkeypatch, tmp_path / "admin.sock", "--ready") == 0
    assert haproxy.said == ["set server api/dify_api_1 state ready", "set server api_internal/dify_api_1 state ready"]
    haproxy.server.close()


def test_without_a_proxy_nothing_is_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drain(monkeypatch, tmp_path / "nobody.sock", "--timeout=60") == 0
