"""Workers that have lost their queues without knowing it are found by what the broker says, and no others."""

from __future__ import annotations

from tests.role_program import load

WORKERS = load("dify", "dify_workers")
RUNNING = ["one", "two"]


def test_a_worker_without_a_consumer_is_restarted_when_it_had_the_time_to_reconnect_and_not_again_at_once() -> None:
    watch = WORKERS.Watch()
    found = {now: watch.deaf({"one": 1, "two": 0}, RUNNING, now) for now in range(0, 100, 5)}
    assert {now: units for now, units in found.items() if units} == {45: ["two"], 95: ["two"]}


def test_one_that_reconnects_or_starts_is_left_alone() -> None:
    watch = WORKERS.Watch()
    for now in range(0, 40, 5):
        assert watch.deaf({"one": 1, "two": 0}, RUNNING, now) == []
    assert watch.deaf({"one": 1, "two": 1}, RUNNING, 40) == []
    for now in range(45, 90, 5):
        assert watch.deaf({"one": 1, "two": 0}, RUNNING, now) == []
    # It is restarted by somebody: its time begins when it runs again.
    assert watch.deaf({"one": 1, "two": 0}, ["one"], 90) == []
    assert watch.deaf({"one": 1, "two": 0}, RUNNING, 120) == []


def test_the_broker_is_reached_as_the_workers_reach_it() -> None:
    environment = "# managed\nMODE=worker\nCELERY_BROKER_URL=amqp://dify:p%2Fw%40@127.0.0.1:5672/of%2Fdify\n"
    assert WORKERS.endpoint(environment) == {
        "host": "127.0.0.1:5672",
        "userid": "dify",
        "password": "p/w@",
        "virtual_host": "of/dify",
        "connect_timeout": WORKERS.PATIENCE,
    }
