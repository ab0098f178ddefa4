"""Ending sessions with servers that are down: the role's program against a HAProxy that answers from tables, in its own words."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils import haproxy

from tests.role_program import load

# As 3.0.11 prints them, shortened in the middle.
PROCESSES = """#<PID>          <type>          <reloads>       <uptime>        <version>
10              master          2 [failed: 0]   0d00h00m06s     3.0.11-1+deb13u5
# workers
22              worker          0               0d00h00m02s     3.0.11-1+deb13u5
# old workers
{old}# programs

"""
OLD = "{pid}              worker          {reloads}               0d00h00m06s     3.0.11-1+deb13u5\n"
SESSION = (
    "{identity}: proto=tcpv4 src=127.0.0.1:38060 fe=pg be={backend} srv={server} ts=00 epoch=0 age={age} calls=3 rate=0 cpu=0 lat=0 "
    "rq[f=848000h,i=0,an=00h,ax=] scf=[8,0h,fd=14,rex=23h59m,wex=] scb=[{state},1h,fd=15,rex=23h59m,wex=] exp=23h59m rc=0 c_exp="
)
OWN = "0x7fc2d5cf6800: proto=sockpair src=unix:2 fe=GLOBAL be=<NONE> srv=<none> ts=404 epoch=0 age=0s calls=1 rate=0 scf=[8,4h] scb=[8,8001h,fd=-1]"


class Master:
    """A master process with the worker 22 and some of before reloads, the backend ``pg`` with ``db1`` to ``db3``; only ``db2`` leads."""

    def __init__(self, old: tuple[int, ...] = ()) -> None:  # noqa: D107
        self.old = old
        self.known = ["db1", "db2", "db3"]
        self.state = {"db1": 0, "db2": 2, "db3": 0}
        self.sessions: dict[int, dict[str, tuple[str, int, str]]] = {process: {} for process in (22, *old)}

    def __call__(self, command: str) -> str:  # noqa: D102
        if command == "show proc":
            old = "".join(OLD.format(pid=pid, reloads=len(self.old) - place) for place, pid in enumerate(self.old))
            return PROCESSES.format(old=old).strip()
        process, _, what = command.removeprefix("@!").partition(" ")
        sessions = self.sessions[int(process)]
        if what == "show servers state":
            head = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port"
            # A former process believes for ever what it knew at the reload.
            states = self.state if process == "22" else dict.fromkeys(self.state, 2)
            return "\n".join([head, *(f"4 pg 1 {name} 10.0.0.1 {states[name]} 0 1 5432" for name in self.known)])
        if what == "show stat -1 4 -1":
            return "\n".join(
                [
                    "# pxname,svname,scur,status",
                    *(f"pg,{name},{sum(server == name for server, _s, _a in sessions.values())},UP" for name in self.known),
                ]
            )
        if what == "show sess":
            lines = [SESSION.format(identity=i, backend="pg", server=server, state=s, age=age) for i, (server, s, age) in sessions.items()]
            return "\n".join([*lines, OWN])
        assert what.startswith("shutdown session ")
        del sessions[what.removeprefix("shutdown session ")]
        return ""


@pytest.fixture
def program() -> ModuleType:
    """Load the program, which finds its library beside itself."""
    sys.modules.setdefault("haproxy", haproxy)
    return load("service_proxy", "service_proxy_sessions")


def test_established_sessions_with_a_server_that_is_down_end_and_those_being_connected_are_left_alone(program: ModuleType) -> None:
    master = Master()
    master.sessions[22] = {"0x1": ("db1", 8, "3s"), "0x2": ("db1", 5, "1s"), "0x3": ("db2", 8, "1h2m")}
    assert program.Supervisor(master, 4).look(0) == ["ended sessions with pg/db1, which is down: 1"]
    assert list(master.sessions[22]) == ["0x2", "0x3"]


def test_what_haproxy_asks_of_another_server_is_left_to_it(program: ModuleType) -> None:
    master = Master()
    master.sessions[22] = {"0x1": ("db1", 8, "3s")}
    assert program.Supervisor(master, 4, ["pg"]).look(0) == []
    assert list(master.sessions[22]) == ["0x1"]


def test_a_server_that_gets_no_new_sessions_keeps_those_that_it_has(program: ModuleType) -> None:
    master = Master()
    master.state["db1"] = 3
    master.sessions[22] = {"0x1": ("db1", 8, "3s")}
    assert program.Supervisor(master, 4).look(0) == []


def test_sessions_of_former_processes_end_by_what_the_present_one_knows(program: ModuleType) -> None:
    master = Master(old=(13,))
    master.sessions[13] = {"0x1": ("db1", 8, "3m"), "0x3": ("db2", 8, "3m")}
    program.Supervisor(master, 4).look(0)
    assert list(master.sessions[13]) == ["0x3"]


def test_a_session_with_a_server_that_is_no_longer_configured_ends(program: ModuleType) -> None:
    master = Master(old=(13,))
    master.sessions[13] = {"0x1": ("db9", 8, "3m")}
    present = Master.__call__

    def answer(command: str) -> str:
        master.known = ["db1", "db2", "db3", *(["db9"] if command.startswith("@!13") else [])]
        master.state["db9"] = 2
        return present(master, command)

    program.Supervisor(answer, 4).look(0)
    assert master.sessions[13] == {}


def test_a_present_process_that_names_no_servers_ends_nothing(program: ModuleType) -> None:
    master = Master(old=(13,))
    master.sessions[13] = {"0x1": ("db1", 8, "3m")}
    master.known = []
    assert program.Supervisor(master, 4).look(0) == []
    assert list(master.sessions[13]) == ["0x1"]


def test_the_oldest_of_too_many_former_processes_loses_a_session_every_two_seconds_the_youngest_first(program: ModuleType) -> None:
    master = Master(old=(11, 13, 15))
    master.sessions[11] = {"0x1": ("db2", 8, "2h1m"), "0x2": ("db2", 8, "59m"), "0x3": ("db2", 8, "1d0h")}
    master.sessions[15] = {"0x9": ("db2", 8, "1s")}
    supervisor = program.Supervisor(master, 2)
    assert len(supervisor.look(0)) == 1
    assert supervisor.look(1) == []
    assert list(master.sessions[11]) == ["0x1", "0x3"]
    supervisor.look(2)
    assert list(master.sessions[11]) == ["0x3"]
    assert list(master.sessions[15]) == ["0x9"]
    assert program.Supervisor(master, 3).look(0) == []


def test_a_session_that_has_lost_its_server_alone_is_reported_once_a_minute(program: ModuleType) -> None:
    master = Master()
    master.sessions[22] = {"0x1": ("db1", 10, "59s"), "0x2": ("db2", 10, "1m1s")}
    supervisor = program.Supervisor(master, 4)
    assert [line[:14] for line in supervisor.look(0)] == ["<4>1 sessions "]
    assert supervisor.look(59) == []
    assert len(supervisor.look(60)) == 1
