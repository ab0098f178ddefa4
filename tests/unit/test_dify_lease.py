"""One host of a site runs the unit, whoever dies, hangs, or cannot be reached: never two, on clocks that only go forward."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.role_program import PROJECT, load

LEASE = load("dify", "dify_lease")
SECONDS = 60.0
SHORTEST = 45.0
"""The shortest lease that the role accepts, and its default."""


class World:
    """Time, the row in PostgreSQL, and who runs."""

    def __init__(self) -> None:
        """Begin at noon, with nobody."""
        self.now = 43200.0
        self.holder, self.ends = "", 0.0
        self.reachable: set[str] = set()
        self.running: dict[str, float] = {}
        """Hosts that run the unit, each with the time at which a stop that was asked for has been done."""
        self.most = 0


class Row:
    """The lease as one host sees it."""

    def __init__(self, world: World, host: str) -> None:
        """Look at the world from a host."""
        self.world, self.host = world, host

    def renew(self, seconds: float) -> bool:
        """Do what the statement does."""
        if self.host not in self.world.reachable:
            # The answer is waited for.
            self.world.now += LEASE.PATIENCE
            raise LEASE.UnknownError("no answer")
        if self.world.holder != self.host and self.world.ends >= self.world.now:
            return False
        self.world.holder, self.world.ends = self.host, self.world.now + seconds
        return True

    def release(self) -> None:
        """Do what the statement does."""
        if self.host not in self.world.reachable:
            raise LEASE.UnknownError("no answer")
        if self.world.holder == self.host:
            self.world.ends = self.world.now

    def moved(self) -> bool:
        """There is one database."""
        return False

    def follow(self) -> None:
        """Stay."""


class Databases:
    """Rows of two databases, of which each host's file names one."""

    def __init__(self) -> None:
        """Begin with all files naming the first."""
        self.rows = {"old": ("", 0.0), "new": ("", 0.0)}
        self.files = {"one": "old", "two": "old"}
        self.dead: set[str] = set()


class Follower(Row):
    """The lease as one host sees it, in the database that it asks."""

    def __init__(self, world: World, host: str, databases: Databases) -> None:
        """Ask the database that the file names."""
        super().__init__(world, host)
        self.databases, self.used = databases, databases.files[host]

    def renew(self, seconds: float) -> bool:
        """Do what the statement does."""
        if self.used in self.databases.dead:
            raise LEASE.UnknownError("no answer")
        self.world.holder, self.world.ends = self.databases.rows[self.used]
        held = super().renew(seconds)
        self.databases.rows[self.used] = self.world.holder, self.world.ends
        return held

    def moved(self) -> bool:
        """Compare the file with the database that is asked."""
        return self.databases.files[self.host] != self.used

    def follow(self) -> None:
        """Ask the other one."""
        self.used = self.databases.files[self.host]


class Fake:
    """A unit on one host, that takes its time to stop, and some to die."""

    def __init__(self, world: World, host: str, stops_in: float = 0.0, dies_in: float = 0.0) -> None:
        """Be dead."""
        self.world, self.host, self.stops_in, self.dies_in, self.word = world, host, stops_in, dies_in, ""

    def start(self) -> None:
        """Run."""
        self.world.running[self.host] = float("inf")
        self.world.most = max(self.world.most, len(self.world.running))

    def stop(self) -> None:
        """Die in a while."""
        self._end(self.stops_in)

    def kill(self) -> None:
        """Die soon."""
        self._end(self.dies_in)

    def _end(self, seconds: float) -> None:
        if self.host in self.world.running:
            self.world.now += seconds
            del self.world.running[self.host]

    def state(self) -> str:
        """Say what was put in the mouth, or how it is."""
        return self.word or ("active" if self.host in self.world.running else "inactive")


def supervised(world: World, host: str, stops_in: float = 0.0, dies_in: float = 0.0, seconds: float = SECONDS) -> Any:
    world.reachable.add(host)
    return LEASE.Supervisor(Row(world, host), Fake(world, host, stops_in, dies_in), seconds, clock=lambda: world.now, say=lambda line: None)


@pytest.fixture
def world() -> World:
    return World()


def pass_time(world: World, seconds: float, *hosts: Any) -> None:
    """Let hosts ask, each every five seconds."""
    end = world.now + seconds
    while world.now < end:
        begun = world.now
        for host in hosts:
            host.tick()
        world.now = max(world.now, begun + LEASE.INTERVAL)


def test_one_of_two_runs_it_and_goes_on(world: World) -> None:
    one, two = supervised(world, "one"), supervised(world, "two")
    pass_time(world, 600, one, two)
    assert list(world.running) == ["one"]
    assert world.most == 1


def test_it_moves_when_its_host_dies_and_not_before_the_end(world: World) -> None:
    one, two = supervised(world, "one"), supervised(world, "two")
    pass_time(world, 60, one, two)
    died, ends = world.now, world.ends
    del world.running["one"]
    while "two" not in world.running:
        pass_time(world, LEASE.INTERVAL, two)
        assert "two" not in world.running or world.now - LEASE.INTERVAL >= ends
    assert world.now - died <= SECONDS + 2 * LEASE.INTERVAL


def test_a_host_that_is_cut_off_has_stopped_before_another_starts(world: World) -> None:
    one, two = supervised(world, "one", stops_in=LEASE.STOP, dies_in=LEASE.KILL), supervised(world, "two")
    pass_time(world, 60, one, two)
    world.reachable.discard("one")
    ends = world.ends
    while "one" in world.running:
        one.tick()
        world.now += LEASE.INTERVAL
    assert world.now - LEASE.INTERVAL <= ends
    pass_time(world, SECONDS, two)
    assert list(world.running) == ["two"]
    assert world.most == 1


def test_a_fail_over_of_postgresql_moves_and_stops_nothing_with_the_shortest_lease(world: World) -> None:
    one, two = supervised(world, "one", seconds=SHORTEST), supervised(world, "two", seconds=SHORTEST)
    pass_time(world, 60, one, two)
    world.reachable.clear()
    begun = world.now
    # Patroni's time to live, and the question before and after.
    while world.now < begun + 30:
        for host in (one, two):
            now = world.now
            host.tick()
            world.now = now
        world.now += LEASE.INTERVAL
    world.reachable |= {"one", "two"}
    pass_time(world, 60, one, two)
    assert list(world.running) == ["one"]


def test_a_row_that_was_lost_stops_the_unit_at_the_next_question(world: World) -> None:
    one = supervised(world, "one")
    pass_time(world, 60, one)
    world.holder, world.ends = "two", world.now + SECONDS
    one.tick()
    assert world.running == {}


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
@pytest.mark.parametrize("apart", [0.0, 20.0, 300.0])
@pytest.mark.parametrize("dead", [False, True])
def test_a_lease_that_is_kept_in_another_database_is_followed_and_never_runs_twice(
    world: World, order: tuple[str, str], apart: float, dead: bool
) -> None:
    databases = Databases()
    hosts = []
    for name in ("one", "two"):
        hosts.append(supervised(world, name, stops_in=3))
        hosts[-1].store = Follower(world, name, databases)
    pass_time(world, 60, *hosts)
    assert list(world.running) == ["one"]
    if dead:
        databases.dead.add("old")
    databases.files[order[0]] = "new"
    # A holder whose file is old goes on in the old database, and the other host waits for it.
    pass_time(world, min(apart, SECONDS / 2) if order[0] == "one" else apart, *hosts)
    databases.files[order[1]] = "new"
    pass_time(world, 3 * SECONDS, *hosts)
    holder, ends = databases.rows["new"]
    assert (list(world.running), world.most) == ([holder], 1)
    assert ends > world.now


def test_the_end_of_the_supervisor_hands_over_at_once(world: World) -> None:
    one, two = supervised(world, "one"), supervised(world, "two")
    pass_time(world, 60, one, two)
    one.close()
    assert world.running == {}
    world.now += 0.1
    two.tick()
    assert list(world.running) == ["two"]


def test_a_supervisor_that_is_ended_shortly_before_the_end_does_not_wait_for_its_unit(world: World) -> None:
    one = supervised(world, "one", stops_in=LEASE.STOP, dies_in=LEASE.KILL)
    pass_time(world, 60, one)
    world.reachable.clear()
    while world.now + LEASE.STOP <= world.ends:
        one.tick()
        world.now += LEASE.INTERVAL
    assert list(world.running) == ["one"]
    one.close()
    assert world.running == {}
    assert world.now <= world.ends


def test_a_host_on_which_the_unit_fails_leaves_it_to_others(world: World) -> None:
    one, two = supervised(world, "one"), supervised(world, "two")
    pass_time(world, 20, one, two)
    one.unit.word = "failed"
    pass_time(world, 30, one, two)
    assert list(world.running) == ["two"]
    assert world.most == 1


def test_what_somebody_has_stopped_by_hand_is_started_again(world: World) -> None:
    one = supervised(world, "one")
    pass_time(world, 20, one)
    world.running.clear()
    one.tick()
    assert list(world.running) == ["one"]


def test_what_somebody_has_started_by_hand_where_the_lease_is_not_is_killed(world: World) -> None:
    one, two = supervised(world, "one"), supervised(world, "two")
    pass_time(world, 20, one, two)
    two.unit.start()
    two.tick()
    assert list(world.running) == ["one"]


def test_what_hangs_begins_again_on_its_host(world: World) -> None:
    one, two = supervised(world, "one"), supervised(world, "two")
    pass_time(world, 20, one, two)
    kills: list[float] = []

    def kill() -> None:
        kills.append(world.now)
        one.answers = lambda: True
        del world.running["one"]

    one.unit.kill = kill
    pass_time(world, LEASE.HANGS - 2 * LEASE.INTERVAL, one, two)
    one.answers, begun = lambda: False, world.now
    pass_time(world, 2 * LEASE.HANGS, one, two)
    assert len(kills) == 1
    assert LEASE.HANGS <= kills[0] - begun + LEASE.INTERVAL <= LEASE.HANGS + 2 * LEASE.INTERVAL
    assert list(world.running) == ["one"]


def test_a_host_on_which_the_unit_never_comes_up_leaves_it_to_others(world: World) -> None:
    one, two = supervised(world, "one"), supervised(world, "two")
    one.unit.word = "activating"
    pass_time(world, 20, one, two)
    assert world.holder == "one"
    pass_time(world, one.patience + LEASE.BACK_OFF / 2, one, two)
    assert list(world.running) == ["two"]
    assert world.most == 1


def test_the_time_that_a_stop_takes_fits_into_the_lease_whatever_happens(world: World) -> None:
    """Hosts die, come back, and are cut off, in any order: never two at a time."""
    chance = random.Random(5)  # noqa: S311

    def fresh(name: str) -> Any:
        return supervised(world, name, stops_in=chance.uniform(0, LEASE.STOP), dies_in=chance.uniform(0, LEASE.KILL))

    hosts = {name: fresh(name) for name in ("one", "two", "three")}
    alive = set(hosts)
    for _ in range(3000):
        name = chance.choice(sorted(hosts))
        fate = chance.random()
        if fate < 0.02 and name in alive:
            alive.discard(name)
            world.running.pop(name, None)
        elif fate < 0.05 and name not in alive:
            alive.add(name)
            hosts[name] = fresh(name)
        elif fate < 0.10:
            world.reachable ^= {name}
        begun = world.now
        spent = 0.0
        for other in sorted(alive):
            # Hosts ask beside each other, not one after another.
            world.now = begun
            before = set(world.running)
            hosts[other].tick()
            if other in before and other not in world.running:
                assert world.now <= world.ends or world.holder != other, "it ran beyond its lease"
            spent = max(spent, world.now - begun)
        world.now = begun + max(LEASE.INTERVAL, spent)
    assert world.most == 1


def test_the_watchdog_is_quicker_than_the_lease() -> None:
    """Killed after so long, and stopped within its time, the unit is dead before the end; and no question with a stop takes so long."""
    unit = (PROJECT / "roles/dify/templates/dify_lease@.service.j2").read_text()
    before_the_end = float(unit.split("WatchdogSec={{ dify_lease_seconds - ")[1].split()[0])
    assert before_the_end >= LEASE.STOP + LEASE.INTERVAL
    assert SHORTEST - before_the_end > LEASE.STOP + LEASE.PATIENCE


class Libpq:
    """As much of psycopg2 as tells one connection string from another."""

    class Error(Exception):
        """What cannot be read."""

    extensions: Any

    def parse_dsn(self, text: str) -> dict[str, str]:
        """Take a string apart."""
        try:
            return dict(word.split("=") for word in text.split())
        except ValueError as error:
            raise self.Error from error


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Start a supervisor's look at the database, on a host whose file says where leases are kept now."""
    libpq = Libpq()
    libpq.extensions = libpq
    monkeypatch.setitem(sys.modules, "psycopg2", libpq)
    monkeypatch.setitem(sys.modules, "psycopg2.extensions", libpq)

    def start(said: str) -> Any:
        (tmp_path / "conninfo").write_text(f"{said}\n")
        return LEASE.Postgresql(tmp_path / "conninfo", "beat", "one", tmp_path / "memory")

    return start


OLD, NEW = "host=old dbname=dify password=a", "host=new dbname=dify password=a"


def test_a_supervisor_that_is_started_again_while_leases_move_remembers_whom_it_asked(asked: Callable[[str], Any], tmp_path: Path) -> None:
    first = asked(OLD)
    assert (first.moved(), first.used) == (False, OLD)
    assert (tmp_path / "memory").stat().st_mode & 0o777 == 0o600
    again = asked(NEW)
    assert (again.moved(), again.used) == (True, OLD)
    # Started again once more, and still not through with the former database.
    assert asked(NEW).moved()
    again.follow()
    assert (again.moved(), again.used) == (False, NEW)
    assert not asked(NEW).moved()


def test_another_password_is_no_other_database(asked: Callable[[str], Any]) -> None:
    asked(OLD).moved()
    changed = asked(OLD.replace("=a", "=b"))
    assert (changed.moved(), changed.used) == (False, OLD.replace("=a", "=b"))


@pytest.mark.parametrize("text", ["", "half a", "\x00"])
def test_a_memory_that_says_nothing_is_as_none(asked: Callable[[str], Any], tmp_path: Path, text: str) -> None:
    (tmp_path / "memory").write_text(text)
    found = asked(NEW)
    assert (found.moved(), found.used) == (False, NEW)


def test_a_memory_that_cannot_be_written_stops_nobody(asked: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "memory.new").mkdir()
    found = asked(NEW)
    assert (found.moved(), found.used) == (False, NEW)
    assert "could not be written" in capsys.readouterr().out
