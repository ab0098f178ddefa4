"""Kill leaders of the data tier in a row, under Dify's load, and look for what stays behind: ``python tests/benchmarks/kills.py [--kills 10]``.

Runs over the lab as ``make lab`` leaves it. The leaders of PostgreSQL, Redis and RabbitMQ are killed by turns, host and all; each host is started
again after a third of the time to the next kill. Chats and workflows go on meanwhile. After each kill, before the next one, nothing may be left of
it: no session without a server, no request older than its time-out, no queue without its consumers. Afterwards no place of the api may be taken.
Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.testing import docker
from tests.lab.conftest import container, execute, wait_until
from tests.lab.leftovers import consumers, left_behind, taken_places
from tests.lab.platform import HOSTS, Answer, Arrivals, Console, chat, leader, workflow

TIMEOUT_S = 60.0
"""What a user waits for an answer. One that takes longer counts as hung."""


def queue_leader() -> str:
    """Host of the leader of Dify's busiest queue."""
    command = ("rabbitmqctl", "--quiet", "--vhost=dify", "list_queues", "name", "leader", "--no-table-headers")
    for line in execute("hq-db1", *command).stdout.splitlines():
        name, node = line.split()
        if name == "workflow_based_app_execution":
            return {"198.18.1.41": "hq-db1", "198.18.1.42": "hq-db2", "198.18.1.43": "hq-db3"}[node.partition("@")[2]]
    raise SystemExit("no queue of that name")


LEADERS: dict[str, Callable[[], str]] = {
    "postgresql": lambda: next(leader("patroni")),
    "redis": lambda: next(leader("redis")),
    "rabbitmq": queue_leader,
}


def describe(answers: list[Answer]) -> str:
    """Count answers by how they ended."""
    failed = [answer for answer in answers if not answer.ok]
    hung = [answer for answer in answers if answer.ended > TIMEOUT_S - 1]
    return f"{len(answers)} asked, {len(failed)} failed, {len(hung)} hung"


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
    load = {
        "chats": Arrivals(lambda: chat(chats, timeout=TIMEOUT_S), every=options.every),
        "workflows": Arrivals(lambda: workflow(flows, timeout=TIMEOUT_S), every=options.every),
    }
    time.sleep(5)
    for number, service in zip(range(options.kills), itertools.cycle(LEADERS), strict=False):
        host = LEADERS[service]()
        killed = time.monotonic()
        docker("kill", container(host))
        time.sleep(options.apart / 3)
        docker("start", container(host))
        left: list[str] = ["not looked yet"]
        while left and time.monotonic() - killed < max(60, options.apart):
            time.sleep(2)
            left = left_behind(before)
        bad += bool(left)
        print(f"kill {number + 1}: {service} on {host}: clean after {time.monotonic() - killed:.0f} s" if not left else f"LEFT: {left}", flush=True)
        time.sleep(max(0, options.apart - (time.monotonic() - killed)))
    for name, arrivals in load.items():
        answers = arrivals.end()
        bad += any(answer.ended > TIMEOUT_S - 1 for answer in answers)
        print(f"{name}: {describe(answers)}", flush=True)
    wait_until(lambda: not left_behind(before), "nothing is left", 60)
    wait_until(lambda: sum(taken_places().values()) == 0, f"no place is taken on {', '.join(HOSTS)}", 60)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
