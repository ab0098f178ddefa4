"""Workers that have lost their queues without knowing it are found by what the broker says, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.role_program import load

WORKERS = load("dify", "dify_workers")
RUNNING = ["one", "two"]


def test_a_worker_without_a_consumer_is_restarted_when_it_had_the_time_to_reconnect_and_not_again_at_once() -> None:
    watch = WORKERS.Watch()
    found = {now: watch.deaf({"one": 1, "two": 0}, RUNNING, now) for now in range(0, 100, 5)}
    assert {now: units for now, units in found.items() if units} == {45: ["two"], 95: ["two"]}


@pytest.mark.parametrize(("away", "restarted"), [(5, 20), (10, 20), (15, 45), (60, 45)])
def test_one_that_was_seen_consuming_has_the_less_time_the_shorter_the_broker_was_away(away: int, restarted: int) -> None:
    watch = WORKERS.Watch()
    assert watch.deaf({"one": 1, "two": 1}, RUNNING, 100) == []
    for dummy in range(away // 5 - 1):
        watch.unknown()
    back = 100 + away
    found = {now - back: watch.deaf({"one": 1, "two": 0}, RUNNING, now) for now in range(back, back + 60, 5)}
    assert min(after for after, units in found.items() if units) == restarted
    # What was long ago is forgotten once all consume.
    assert watch.deaf({"one": 1, "two": 1}, RUNNING, 1000) == []
    assert watch.deaf({"one": 1, "two": 1}, RUNNING, 1005) == []
    assert {now: watch.deaf({"one": 0, "two": 1}, RUNNING, now) for now in range(1010, 1035, 5)}[1030] == ["one"]


def test_one_that_reconnects_or_starts_is_left_alone() -> None:
    watch = WORKERS.Watch()
    for now in range(0, 40, 5):
        assert watch.deaf({"one": 1, "two": 0}, RUNNING, now) == []
    assert watch.deaf({"one": 1, "two": 1}, RUNNING, 40) == []
    for now in range(45, 65, 5):
        assert watch.deaf({"one": 1, "two": 0}, RUNNING, now) == []
    # It is restarted by somebody: its time begins when it runs again.
    assert watch.deaf({"one": 1, "two": 0}, ["one"], 65) == []
    assert watch.deaf({"one": 1, "two": 0}, RUNNING, 70) == []
    assert watch.deaf({"one": 1, "two": 0}, RUNNING, 85) == []


def test_the_broker_is_reached_as_the_workers_reach_it() -> None:
    environment = "# managed\nMODE=worker\nCELERY_BROKER_URL=amqp://dify:p%2Fw%40@127.0.0.1:5672/of%2Fdify\n"
    assert WORKERS.endpoint(environment) == {
        "host": "127.0.0.1:5672",
        "userid": "dify",
        "password": "p/w@",
        "virtual_host": "of/dify",
        "connect_timeout": WORKERS.PATIENCE,
    }


class Broker:
    """RabbitMQ, as it looks one look after another: the consumers of each worker's queue, or nothing where it does not answer."""

    def __init__(self, *looks: dict[str, int] | None) -> None:
        """Begin."""
        self.looks: Iterator[dict[str, int] | None] = iter(looks)
        self.now: dict[str, int] | None = None
        self.asked: list[str] = []

    def consumers(self, worker: str) -> int:
        """Count the consumers of a worker's own queue."""
        self.now = next(self.looks, self.now)
        self.asked.append(worker)
        if self.now is None:
            raise WORKERS.UnknownError("Connection refused")
        return self.now.get(worker, 0)


HERE = Path("/proc/self")


def test_one_that_starts_is_waited_for_until_it_consumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WORKERS, "PAUSE", 0.01)
    broker = Broker(None, {}, {"one": 0}, {"one": 1})
    assert WORKERS.ready(broker, ["one"], 10, HERE)
    assert broker.asked == ["one"] * 4


def test_one_that_does_not_come_and_why_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(WORKERS, "PAUSE", 0.01)
    assert not WORKERS.ready(Broker({"one": 1}, {"two": 0}), ["one", "two"], 0.05, HERE)
    assert capsys.readouterr().err == "two consumed nothing for 0 s\n"
    assert not WORKERS.ready(Broker(None), ["two"], 0.05, HERE)
    assert "the broker does not answer: Connection refused" in capsys.readouterr().err
    begun = Broker({"one": 0})
    assert not WORKERS.ready(begun, ["one"], 60, Path("/proc/0"))
    assert begun.asked == []
    assert "ended before it consumed" in capsys.readouterr().err
