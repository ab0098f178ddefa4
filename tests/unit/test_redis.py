"""What a member of a Redis set is brought to, against a Redis that answers from tables."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils import redis_client
from ansible_collections.sovereign.dify.plugins.module_utils.redis_client import Connection, RedisError, View, leader
from ansible_collections.sovereign.dify.plugins.module_utils.redis_member import (
    SENTINEL,
    SERVER,
    Member,
    MemberError,
    generation,
    normal,
    same,
    settings,
)

from tests.role_program import load

MEMBERS = ["10.1.1.11", "10.1.1.12", "10.1.1.13"]
SHOWN = "ActiveState={active}\nUnitFileState={enabled}\nNeedDaemonReload=no\nExecMainStartTimestamp={started}\n"


class Answers:
    """A connection that answers from a table and remembers what changed something."""

    def __init__(self, table: dict[str, Any]) -> None:
        """Take the table, by command."""
        self.table = table
        self.said: list[str] = []

    def __call__(self, *words: str | int) -> Any:
        """Answer."""
        command = " ".join(map(str, words))
        if command not in self.table:
            self.said.append(command)
        return self.table.get(command, "OK")

    def pairs(self, *words: str | int) -> dict[str, str]:
        """Answer with names and values."""
        if words[:2] == ("CONFIG", "GET"):
            return {str(word): self.table["config"][word] for word in words[2:] if word in self.table["config"]}
        return dict(self(*words))

    def __enter__(self) -> Answers:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    for directory in ("etc/redis", "var/lib/redis", "run/redis", "run/sentinel"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/redis/admin.password").write_text("new\nold\n")
    (tmp_path / "etc/redis/sovereign.conf").write_text('# managed\nsave ""\nmaxmemory "64mb"\nmasterauth "secret"\n')
    (tmp_path / "etc/redis/sovereign-sentinel.conf").write_text(
        "# managed\nport 0\nsentinel announce-ip 10.1.1.12\n"
        "sentinel auth-user set sentinel\nsentinel auth-pass set new\nsentinel down-after-milliseconds set 5000\n"
    )
    for name in ("users.acl", "sentinel.acl"):
        (tmp_path / "etc/redis" / name).write_text("user default reset off\nuser generation-1 reset off\n")
    found = Member(
        "10.1.1.12", MEMBERS, "set", lambda command: SHOWN.format(active="active", enabled="enabled", started="@1") if "show" in command else ""
    )
    found.root = tmp_path
    found.__post_init__()
    monkeypatch.setattr(found, "find_master", lambda: "10.1.1.13")
    return found


def run_in_the_set(member: Member) -> None:
    member.state.write_text("replicaof 10.1.1.13 6379\n")
    member.state_sentinel.write_text("sentinel auth-user set sentinel\nsentinel auth-pass set old\n")
    for path in member.sockets.values():
        path.touch()


@pytest.mark.parametrize(
    ("present", "check_mode", "said"),
    [("1000", False, ["SENTINEL DEBUG PING-PERIOD 250"]), ("1000", True, []), ("250", False, [])],
)
def test_a_sentinel_pings_as_often_as_is_wanted(member: Member, present: str, check_mode: bool, said: list[str]) -> None:
    connection = Answers({"SENTINEL DEBUG": [("INFO-PERIOD", "10000"), ("PING-PERIOD", present)]})
    replace(member, ping_period=250).pace_sentinel(connection, check_mode)  # type: ignore[arg-type]
    assert connection.said == said


def test_a_new_member_follows_whoever_leads(member: Member) -> None:
    seeds = dict(member.seeds())
    assert "replicaof 10.1.1.13 6379\n" in seeds[member.state]
    assert seeds[member.state_sentinel].splitlines()[1:] == [
        "port 0",
        "sentinel monitor set 10.1.1.13 6379 2",
        "sentinel announce-ip 10.1.1.12",
        "sentinel auth-user set sentinel",
        "sentinel auth-pass set new",
        "sentinel down-after-milliseconds set 5000",
    ]
    member.address = "10.1.1.13"
    assert "replicaof" not in dict(member.seeds())[member.state]


def test_what_the_services_have_written_is_not_written_again(member: Member) -> None:
    run_in_the_set(member)
    assert list(member.seeds()) == []


def test_data_of_another_redis_is_not_lost(member: Member) -> None:
    (member.state.parent / "dump.rdb").write_bytes(b"x" * 1000)
    with pytest.raises(MemberError, match="Move it away"):
        list(member.seeds())


def test_check_mode_says_what_a_fresh_member_needs_and_does_nothing(member: Member) -> None:
    member.bring_up(check_mode=True)
    assert [change.what for change in member.done] == ["state of redis.conf", "state of sentinel.conf", SERVER, SENTINEL]
    assert not member.state.exists()


def test_only_what_differs_is_set_and_secrets_are_hidden(member: Member) -> None:
    connection = Answers({"config": {"save": "", "maxmemory": "1", "masterauth": "other"}})
    member.adjust_server(connection, check_mode=False)  # type: ignore[arg-type]
    assert connection.said == ["CONFIG SET maxmemory 64mb masterauth secret"]
    assert [change.line(change.after) for change in member.done] == ["maxmemory: 64mb\n", "masterauth: (secret)\n"]


def test_what_needs_a_restart_is_told_and_not_tried(member: Member) -> None:
    member.wanted.write_text("databases 32\n")
    connection = Answers({"config": {"databases": "16"}})
    member.adjust_server(connection, check_mode=False)  # type: ignore[arg-type]
    assert connection.said == []
    assert member.pending == ["databases is 16, shall be 32"]
    assert member.done == []


def test_a_setting_that_would_prevent_the_next_start_is_refused(member: Member) -> None:
    member.wanted.write_text("max-memory 32\n")
    with pytest.raises(MemberError, match="knows no setting max-memory"):
        member.adjust_server(Answers({"config": {}}), check_mode=False)  # type: ignore[arg-type]


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[bool | None]]], list[tuple[str, int, str]]]:
    """Let members accept (True), refuse (False) or not answer (None) logins, one after another, the last one for ever; gives who was asked."""

    def script(answers: dict[str, list[bool | None]]) -> list[tuple[str, int, str]]:
        asked: list[tuple[str, int, str]] = []

        def login(_: Member, address: str, port: int, user: str, __: str) -> bool | None:
            asked.append((address, port, user))
            left = answers.get(address, [True])
            return left.pop(0) if len(left) > 1 else left[0]

        monkeypatch.setattr(Member, "_login", login)
        return asked

    return script


TOLD = [("quorum", "1"), ("down-after-milliseconds", "5000")]
Logins = Callable[[dict[str, list[bool | None]]], list[tuple[str, int, str]]]


def test_sentinel_is_told_what_it_does_not_have(member: Member, logins: Logins) -> None:
    run_in_the_set(member)
    logins({})
    connection = Answers({"SENTINEL MASTER set": TOLD, "SENTINEL CONFIG GET *": [("announce-ip", "")]})
    member.adjust_sentinel(connection, check_mode=False, timeout=1)  # type: ignore[arg-type]
    assert connection.said == ["SENTINEL SET set quorum 2", "SENTINEL CONFIG SET announce-ip 10.1.1.12", "SENTINEL SET set auth-pass new"]


def test_a_new_password_is_used_when_all_who_answer_know_it(member: Member, logins: Logins) -> None:
    run_in_the_set(member)
    member.sleep = lambda _: None
    asked = logins({"10.1.1.11": [False, False, True], "10.1.1.13": [None]})
    connection = Answers({"SENTINEL MASTER set": TOLD, "SENTINEL CONFIG GET *": []})
    member.adjust_sentinel(connection, check_mode=False, timeout=5)  # type: ignore[arg-type]
    assert "SENTINEL SET set auth-pass new" in connection.said
    assert asked.count(("10.1.1.11", 6379, "sentinel")) == 3


def test_a_password_that_one_refuses_is_not_used(member: Member, logins: Logins) -> None:
    run_in_the_set(member)
    logins({"10.1.1.11": [False]})
    connection = Answers({"SENTINEL MASTER set": TOLD, "SENTINEL CONFIG GET *": []})
    with pytest.raises(MemberError, match=r"10\.1\.1\.11 did not accept the new password of sentinel on port 6379.*all members at once"):
        member.adjust_sentinel(connection, check_mode=False, timeout=0)  # type: ignore[arg-type]
    assert "SENTINEL SET set auth-pass new" not in connection.said


@pytest.mark.parametrize(
    ("flags", "answers", "renewed"), [("sentinel", True, False), ("sentinel,s_down", True, True), ("sentinel,s_down", None, False)]
)
def test_sentinels_that_refused_a_login_once_are_asked_again(member: Member, logins: Logins, flags: str, answers: bool | None, renewed: bool) -> None:
    run_in_the_set(member)
    member.state_sentinel.write_text("sentinel auth-pass set new\n")
    member.wanted_sentinel.write_text("sentinel sentinel-user sentinel\nsentinel sentinel-pass new\n")
    logins({"10.1.1.13": [answers]})
    connection = Answers(
        {
            "SENTINEL MASTER set": [("quorum", "2")],
            "SENTINEL CONFIG GET *": [("sentinel-user", "sentinel"), ("sentinel-pass", "new")],
            "SENTINEL SENTINELS set": [["ip", "10.1.1.13", "flags", flags]],
        }
    )
    member.adjust_sentinel(connection, check_mode=False, timeout=1)  # type: ignore[arg-type]
    assert connection.said == (["SENTINEL CONFIG SET sentinel-pass new"] if renewed else [])


def test_users_are_loaded_when_the_file_is_another(member: Member) -> None:
    for loaded, said in ((["default", "generation-0"], ["ACL LOAD"]), (["default", "generation-1"], [])):
        connection = Answers({"ACL USERS": loaded})
        member.adjust_users(SERVER, connection, check_mode=False)  # type: ignore[arg-type]
        assert connection.said == said


def test_a_unit_that_changed_under_a_running_service_is_told(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_the_set(member)
    monkeypatch.setattr(member, "connect", lambda _: Answers({}))
    for name in ("adjust_users", "adjust_server", "adjust_sentinel"):
        monkeypatch.setattr(member, name, lambda *_: None)
    drop_in = member.root / f"etc/systemd/system/{SERVER}.service.d/sovereign.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.touch()
    member.bring_up(check_mode=False)
    assert member.pending == ["redis-server was started before its unit was changed"]
    assert member.done == []


def test_values_are_compared_as_redis_writes_them() -> None:
    assert settings('# no\nsave ""\nbind "a b"\n') == {"save": "", "bind": "a b"}
    assert normal("64MB") == "67108864"
    assert same("replica 256mb 64mb 60", "normal 0 0 0 replica 268435456 67108864 60 pubsub 33554432 8388608 60")
    assert not same("1", "10 1")
    assert generation("user default off\nuser generation-7 reset off\n") == "generation-7"


def test_the_best_informed_sentinel_is_believed() -> None:
    assert leader([View("a", "old", 3), View("b", "new", 4), View("c", "old", 3)]) == "new"
    assert leader([]) is None


@pytest.fixture
def server(tmp_path: Path) -> Callable[[bytes], Path]:
    """Give the socket of a server that answers each login with OK for `new` alone, and anything else with the given bytes."""

    def serve(answer: bytes) -> Path:
        path = tmp_path / "redis.sock"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen(1)

        def converse() -> None:
            with listening, listening.accept()[0] as connection:
                while asked := connection.recv(1000):
                    login = b"+OK\r\n" if b"\r\nnew\r\n" in asked else b"-WRONGPASS no\r\n"
                    connection.sendall(login if b"AUTH" in asked else answer)

        threading.Thread(target=converse, daemon=True).start()
        return path

    return serve


def test_the_protocol_is_spoken(server: Callable[[bytes], Path]) -> None:
    with Connection.unix(str(server(b"*3\r\n$4\r\nrole\r\n:7\r\n$-1\r\n")), "admin", ["old", "new"]) as connection:
        assert connection("ROLE") == ["role", 7, None]


def test_a_password_that_nobody_knows_is_an_error(server: Callable[[bytes], Path]) -> None:
    with pytest.raises(RedisError, match="WRONGPASS"):
        Connection.unix(str(server(b"")), "admin", ["old", "older"])


def program(name: str) -> ModuleType:
    """Load a program of the role, which finds the client beside itself."""
    sys.modules.setdefault("redis_client", redis_client)
    return load("redis", name)


def test_a_member_that_was_away_follows_and_one_that_leads_follows_nobody() -> None:
    following = program("redis_follow").following
    once = "# head\nreplicaof 10.1.1.12 6379\nsave 60 1\n"
    assert following(once, "10.1.1.11", "10.1.1.13", 6379) == "# head\nsave 60 1\nreplicaof 10.1.1.13 6379\n"
    assert following(once, "10.1.1.11", "10.1.1.11", 6379) == "# head\nsave 60 1\n"


class Leaving(Answers):
    """A server that leads until it is told otherwise; its replica has everything at the second look."""

    def __init__(self, sentinel: Answers) -> None:
        """Take the Sentinel, whose answer changes once a fail-over was asked for."""
        super().__init__({})
        self.sentinel = sentinel
        self.looks = 0

    def info(self, _: str) -> dict[str, str]:
        """Tell of the replication."""
        self.looks += 1
        offset = "9" if self.looks > 2 else "5"
        return {"role": "master", "master_repl_offset": "9", "slave0": f"ip=10.1.1.13,port=6379,state=online,offset={offset},lag=0"}


def test_writers_wait_while_another_member_takes_over(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    sentinel = Answers({"SENTINEL GET-MASTER-ADDR-BY-NAME set": ["10.1.1.13", "6379"]})
    server = Leaving(sentinel)
    monkeypatch.setattr(member, "connect", lambda service: server if service == SERVER else sentinel)
    monkeypatch.setattr(member, "sleep", lambda _: None)
    assert member.hand_over(check_mode=False)
    assert sentinel.said == ["SENTINEL FAILOVER set"]
    assert server.said == [
        *("CLIENT PAUSE 35000 WRITE", "REPLICAOF 10.1.1.13 6379", "CONFIG REWRITE"),
        *("CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub", "CLIENT UNPAUSE"),
    ]


def test_writers_go_on_where_nobody_takes_over(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    sentinel = Answers({"SENTINEL GET-MASTER-ADDR-BY-NAME set": [member.address, "6379"]})
    server = Leaving(sentinel)
    monkeypatch.setattr(member, "connect", lambda service: server if service == SERVER else sentinel)
    with pytest.raises(MemberError, match="goes on leading"):
        member.hand_over(check_mode=False, timeout=0.3)
    assert server.said == ["CLIENT PAUSE 5300 WRITE", "CLIENT UNPAUSE"]


class Server(Answers):
    """A server that tells what INFO says."""

    def info(self, section: str) -> dict[str, str]:
        """Answer from the table."""
        return dict(self.table[section])


def told(role: str, written: str, link: str = "up") -> Server:
    return Server({"replication": {"role": role, "master_link_status": link}, "persistence": {"aof_last_write_status": written}})


@pytest.mark.parametrize(
    ("here", "there", "asked"),
    [
        (told("master", "err"), told("slave", "ok"), True),
        (told("master", "ok"), told("slave", "ok"), False),
        (told("slave", "err"), told("master", "ok"), False),
        (told("master", "err"), told("slave", "err"), False),
        (told("master", "err"), told("slave", "ok", link="down"), False),
    ],
)
def test_a_master_that_cannot_write_steps_down_where_another_can(here: Server, there: Server, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    step_down, sentinel = program("redis_step_down"), Answers({})

    class Sockets:
        unix = staticmethod(lambda path, *_: here if "server" in path else sentinel)
        tls = staticmethod(lambda *_: there)

    monkeypatch.setattr(step_down, "Connection", Sockets)
    assert step_down.look(6379, "set", ["10.1.1.13"], ["key"]) is asked
    assert sentinel.said == (["SENTINEL FAILOVER set"] if asked else [])


@pytest.mark.parametrize(
    ("accepted", "restarted"),
    [
        pytest.param("admin new", [], id="all is well"),
        pytest.param("admin old", [], id="the former password"),
        pytest.param("sentinel s-new", [], id="one password was changed without the former one"),
        pytest.param("nobody at all", [SENTINEL], id="the users of another state directory"),
    ],
)
def test_a_service_with_the_users_of_another_state_directory_is_restarted(member: Member, accepted: str, restarted: list[str]) -> None:
    member.wanted_sentinel.write_text("sentinel sentinel-user sentinel\nsentinel sentinel-pass s-new\n")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(member.sockets[SENTINEL]))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    stream, _ = listening.accept()
                except OSError:
                    return
                with stream, stream.makefile("rb") as asked:
                    while words := [asked.readline().strip().decode() for dummy in range(7)]:
                        if not words[0]:
                            break
                        stream.sendall(b"+OK\r\n" if f"{words[4]} {words[6]}" == accepted else b"-WRONGPASS no\r\n")

        threading.Thread(target=serve, daemon=True).start()
        assert [service for service in (SERVER, SENTINEL) if member.foreign(service)] == restarted
        listening.shutdown(socket.SHUT_RDWR)
