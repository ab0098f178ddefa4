"""Draining servers by HAProxy's runtime socket, against a HAProxy that answers from a table."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.haproxy import (
    HaproxyError,
    await_alive,
    differences,
    runtime,
    select,
    servers,
    settle,
    watch,
)
from ansible_collections.sovereign.dify.plugins.module_utils.save_server_state import unmoved

COLUMNS = "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port"


class Haproxy:
    """Two backends with the server ``gpu1``, one with ``gpu2``; ``gpu1`` ends one request at each look."""

    def __init__(self, sessions: int = 0) -> None:  # noqa: D107
        self.admin = {("model_a", "gpu1"): 0, ("model_b", "gpu1"): 0, ("model_b", "gpu2"): 0}
        self.operation = dict.fromkeys(self.admin, 2)
        self.sessions = sessions
        self.commands: list[str] = []

    def __call__(self, command: str) -> str:  # noqa: D102
        if command == "show servers state":
            lines = [f"4 {b} 1 {s} 198.18.1.31 {self.operation[b, s]} {flags} 1 8100" for (b, s), flags in self.admin.items()]
            return "\n".join(["1", f"# {COLUMNS}", *lines])
        if command == "show stat -1 4 -1":
            self.sessions = max(0, self.sessions - 1)
            return "\n".join(
                [
                    "# pxname,svname,scur,status,check_status,last_chk",
                    *(f"{b},{s},{self.sessions if s == 'gpu1' else 3},UP,L7STS,Layer7 wrong status" for b, s in self.admin),
                ]
            )
        self.commands.append(command)
        place, state = command.removeprefix("set server ").split(" state ")
        if place == "model_b/gpu2":
            return "Permission denied."
        backend, name = place.split("/")
        self.admin[backend, name] = 8 if state == "drain" else 0
        return ""


def test_a_server_is_drained_in_the_backends_that_are_named_and_its_requests_are_waited_for() -> None:
    haproxy = Haproxy(sessions=4)
    after = settle(haproxy, "gpu1", ["model_a", "model_b"], "drained", timeout=5, pause=0)
    assert haproxy.commands == ["set server model_a/gpu1 state drain", "set server model_b/gpu1 state drain"]
    assert [(server.drained, server.sessions) for server in after] == [(True, 0), (True, 0)]
    settle(haproxy, "gpu1", ["model_a", "model_b"], "drained", timeout=5, pause=0)
    assert len(haproxy.commands) == 2


def test_a_backend_is_waited_for_until_somebody_lives_and_the_complaint_says_how_each_server_is() -> None:
    haproxy = Haproxy()
    haproxy.operation["model_b", "gpu1"] = 0
    assert [server.name for server in await_alive(haproxy, ["model_b"], timeout=0)] == ["gpu1", "gpu2"]
    haproxy.operation["model_a", "gpu1"] = 0
    with pytest.raises(
        HaproxyError, match=r"nobody answers for model_a: gpu1 UP \(L7STS Layer7 wrong status\); nobody answers for redis: no servers"
    ):
        await_alive(haproxy, ["model_a", "model_b", "redis"], timeout=0)


def test_a_dead_server_can_be_drained_and_is_not_ready_before_it_lives() -> None:
    haproxy = Haproxy()
    haproxy.operation["model_a", "gpu1"] = 0
    assert not settle(haproxy, "gpu1", ["model_a"], "drained", timeout=0, pause=0)[0].alive
    with pytest.raises(HaproxyError, match="not ready after 0 s: model_a/gpu1"):
        settle(haproxy, "gpu1", ["model_a"], "ready", timeout=0, pause=0)
    assert haproxy.admin["model_a", "gpu1"] == 0
    haproxy.operation["model_a", "gpu1"] = 2
    assert settle(haproxy, "gpu1", ["model_a"], "ready", timeout=0, pause=0)[0].alive


def test_a_server_in_maintenance_is_drained_already_and_made_ready() -> None:
    haproxy = Haproxy()
    haproxy.admin["model_a", "gpu1"] = 1
    settle(haproxy, "gpu1", ["model_a"], "drained", timeout=0, pause=0)
    assert haproxy.commands == []
    settle(haproxy, "gpu1", ["model_a"], "ready", timeout=0, pause=0)
    assert haproxy.commands == ["set server model_a/gpu1 state ready"]


def test_who_does_not_come_to_an_end_is_named() -> None:
    with pytest.raises(HaproxyError, match="not drained after 0 s: model_a/gpu1 is UP with 97 requests"):
        settle(Haproxy(sessions=99), "gpu1", ["model_a"], "drained", timeout=0, pause=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(HaproxyError, match="no server gpu2 in backend model_a; HAProxy knows model_a/gpu1, model_b/gpu1, model_b/gpu2"):
        select(servers(Haproxy()), "gpu2", ["model_a", "model_b"])
    with pytest.raises(HaproxyError, match="model_b/gpu2: Permission denied"):
        settle(Haproxy(), "gpu2", ["model_b"], "drained", timeout=0, pause=0)


def test_the_socket_is_asked_one_command_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.sendall(b"you said " + connection.recv(1024))
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    assert runtime(path)("show info") == "you said show info"


CONFIGURATION = """\
frontend site
    bind 198.18.1.11:8443
    server not-a-backend 198.18.1.31:8100
backend model_a
    default-server ssl
    server gpu1 198.18.1.31:8100 sni str(gpu1)
backend model_b
    server gpu1 198.18.1.31:8200
listen model_d
    bind 127.0.0.1:5003
    server gpu1 198.18.1.31:8100 check
"""


def test_only_servers_that_are_still_where_they_were_keep_their_state_over_a_reload() -> None:
    a, b, gone, d = (f"{backend} 1 gpu1 198.18.1.31 2 8 1 8100" for backend in ("4 model_a", "5 model_b", "6 model_c", "7 model_d"))
    state = "\n".join(["1", f"# {COLUMNS}", a, b, gone, d, ""])
    assert unmoved(state, CONFIGURATION) == "\n".join(["1", f"# {COLUMNS}", a, d, ""])


@pytest.mark.parametrize("state", ["", "2\n# be_id", "1\nPermission denied."])
def test_a_state_in_a_form_that_is_not_known_is_not_saved(state: str) -> None:
    with pytest.raises(ValueError, match="not a state of version 1"):
        unmoved(state, CONFIGURATION)


def test_what_haproxy_runs_is_compared_with_what_is_written_and_with_what_is_declared(tmp_path: Path) -> None:
    configuration, table, patterns = tmp_path / "haproxy.cfg", tmp_path / "keys.map", tmp_path / "allowed.lst"
    configuration.write_text("global\n    setenv CONFIGURATION_DIGEST new\n")
    table.write_text('# comment\nhq/b  second\n\nhq/a {"data": []}\n')
    patterns.write_text("grant/a\n")
    answers = {
        "show env CONFIGURATION_DIGEST": "CONFIGURATION_DIGEST=new",
        "show map": f"# id (file) description\n1 ({table}) pattern loaded from file '{table}' used by map\n-1 () a map without a file",
        "show acl": f"# id (file) description\n2 ({patterns}) pattern loaded from file\n3 () acl 'path' file 'x' line 3",
        f"show map {table}": '0x55 hq/a {"data": []}\n0x56 hq/b second',
        f"show acl {patterns}": "0x57 grant/a",
    }

    def found(digest: str | None = None) -> list[str]:
        return differences(answers.__getitem__, configuration, digest)

    assert found() == []
    assert found("new") == []
    (declared,) = found("newer")
    assert "than the inventory declares" in declared
    answers["show env CONFIGURATION_DIGEST"] = "CONFIGURATION_DIGEST=old"
    (written,) = found()
    assert f"than {configuration} holds" in written
    answers["show env CONFIGURATION_DIGEST"] = "Variable not found"
    assert len(found("new")) == 2
    answers["show env CONFIGURATION_DIGEST"] = "CONFIGURATION_DIGEST=new"
    # A client's key is gone from the file, and still works.
    table.write_text('hq/a {"data": []}\n')
    patterns.unlink()
    assert found() == [f"HAProxy runs with another {table} than is written", f"HAProxy runs with another {patterns} than is written"]


def test_who_looks_for_ever_says_once_that_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    looks: list[list[str] | Exception] = [["ended one"], OSError("no socket"), KeyError("process"), [], ["ended two"]]
    slept: list[float] = []

    def look() -> list[str]:
        found = looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if not looks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(look, 15, sleep)
    assert capsys.readouterr().out.splitlines() == ["ended one", "HAProxy did not answer: OSError('no socket')", "HAProxy answers again", "ended two"]
    assert slept == [15] * 5
