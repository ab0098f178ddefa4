"""Kill leaders of the data tier in a row, under Dify's load, and look for what stays behind: ``python tests/benchmarks/kills.py [--kills 10]``.

Runs over the lab as ``make lab`` leaves it. The leaders of PostgreSQL, Redis and RabbitMQ are killed by turns, host and all; each host is started
again after a third of the time to the next kill, which waits until every service has all of its members again. Chats and workflows go on meanwhile.
After each kill, before the next one, nothing may be left of it: no session without a server, no request older than its time-out, no queue without its
consumers. Afterwards no place of the api may be taken.
Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.testing import docker
from tests.lab.conftest import container, execute, wait_until
from tests.lab.leftovers import consumers, left_behind, rabbitmq, taken_places
from tests.lab.platform import HOSTS, Answer, Arrivals, Console, chat, leader, workflow

TIMEOUT_S = 60.0
"""What a user waits for an answer. One that takes longer counts as hung."""


MEMBERS = {"198.18.1.41": "hq-db1", "198.18.1.42": "hq-db2", "198.18.1.43": "hq-db3"}


def queue_leader() -> str:
    """Host of the leader of Dify's busiest queue."""
    for row in rabbitmq("--vhost=dify", "list_queues", "name", "leader"):
        if row["name"] == "workflow_based_app_execution":
            return MEMBERS[row["leader"].partition("@")[2]]
    raise SystemExit("no queue of that name")


def whole() -> bool:
    """Whether every service has all of its members: a kill then leaves a majority, as it has to."""
    counted = {
        "patroni": ["su", "-s", "/bin/sh", "postgres", "-c", "psql -Atc \"select count(*) from pg_stat_replication where state = 'streaming'\""],
        "redis": ["sh", "-c", "redis-admin info replication | grep -c state=online"],
    }
    for service, command in counted.items():
        led = next(leader(service), None)
        if not led or execute(led, *command, check=False).stdout.strip() != str(len(MEMBERS) - 1):
            return False
    return len(rabbitmq("cluster_status")["running_nodes"]) == len(MEMBERS)


LEADERS: dict[str, Callable[[], str]] = {
    "postgresql": lambda: next(leader("patroni")),
    "redis": lambda: next(leader("redis")),
    "rabbitmq": queue_leader,
}


def describe(answers: list[Answer], kills: list[float]) -> str:
    """Count answers by how they ended, and tell of those that hung after which kill they had begun.

    Args:
        answers: The answers.
        kills: When each kill was, by the same clock as the answers.
    """
    failed = [answer for answer in answers if not answer.ok]
    hung = [answer for answer in answers if answer.ended > TIMEOUT_S - 1]
    since = {answer.started: [answer.started - kill for kill in kills if kill <= answer.started] for answer in hung}
    begun = [f"{after[-1]:.0f} s after kill {len(after)}" if after else "before the first" for dummy, after in sorted(since.items())]
    return f"{len(answers)} asked, {len(failed)} failed, {len(hung)} hung{', begun ' if begun else ''}{', '.join(begun)}"


def main() -> int:
    """Run the kills and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--apart", type=float, default=60, help="seconds from one kill to the next")
    parser.add_argument("--every", type=float, default=1, help="seconds from one chat, and one workflow, to the next")
    options = parser.parse_args()
    console = Console()
    chats, flows = console.chat(), console.workflow()
    before, bad = consumers(), 0
    kills: list[float] = []
    load = {
        "chats": Arrivals(lambda: chat(chats, timeout=TIMEOUT_S), every=options.every),
        "workflows": Arrivals(lambda: workflow(flows, timeout=TIMEOUT_S), every=options.every),
    }
    time.sleep(5)
    for number, service in zip(range(options.kills), itertools.cycle(LEADERS), strict=False):
        waited = wait_until(whole, "every service has all of its members", 180, pause=3)
        host = LEADERS[service]()
        killed = time.monotonic()
        kills.append(killed)
        docker("kill", container(host))
        time.sleep(options.apart / 3)
        docker("start", container(host))
        left: list[str] = ["not looked yet"]
        last = left
        while left and time.monotonic() - killed < max(60, options.apart):
            time.sleep(2)
            last = left
            try:
                left = left_behind(before)
            except pytest.fail.Exception as error:
                # For instance of a host that has not booted yet.
                left = [str(error)]
        bad += bool(left)
        found = f"LEFT: {left}" if left else f"clean after {time.monotonic() - killed:.0f} s, the last was {last[0][:100]}"
        print(f"kill {number + 1} (whole again after {waited:.0f} s more): {service} on {host}: {found}", flush=True)
        time.sleep(max(0, options.apart - (time.monotonic() - killed)))
    for name, arrivals in load.items():
        answers = arrivals.end()
        bad += any(answer.ended > TIMEOUT_S - 1 for answer in answers)
        print(f"{name}: {describe(answers, kills)}", flush=True)
    wait_until(lambda: not left_behind(before), "nothing is left", 60)
    wait_until(lambda: sum(taken_places().values()) == 0, f"no place is taken on {', '.join(HOSTS)}", 60)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
