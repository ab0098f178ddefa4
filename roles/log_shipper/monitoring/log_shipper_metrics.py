"""Print what the log shipper of this host has sent, has waiting, and has lost.

``log_shipper_metrics.py <state directory> <bytes that a queue may take>``

rsyslog's module impstats writes its counters as lines, ``<time> <JSON>``, a block every 15 seconds.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TAIL = 131072
"""Bytes of the counters that are read: several blocks, however many targets there are."""


def tail(path: Path) -> list[str]:
    """Give the last lines of a file, or none where there is no such file."""
    if not path.exists():
        return []
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL))
        return stream.read().decode("utf-8", "replace").splitlines()


def counters(lines: list[str]) -> tuple[int, dict[str, Mapping[str, Any]]]:
    """Give the newest counters by their name, and when they were written."""
    found: dict[str, Mapping[str, Any]] = {}
    newest = 0
    for line in lines:
        when, dummy, text = line.partition(" ")
        try:
            told = json.loads(text)
            newest = max(newest, int(when))
        except ValueError:  # the first line may have lost its beginning
            continue
        if isinstance(told, dict) and "name" in told:
            found[str(told["name"])] = told
    return newest, found


def metrics(state: Path, limit: int) -> Iterator[str]:
    """Yield the metrics, a line each."""
    newest, found = counters([*tail(state / "stats.old"), *tail(state / "stats")])
    yield f"sovereign_log_stats_time_seconds {newest}"
    yield f"sovereign_log_unmasked_lines_total {found.get('unmasked', {}).get('processed', 0)}"
    yield f"sovereign_log_queue_limit_bytes {limit}"
    for name, told in sorted(found.items()):
        if not name.startswith("to_") or name.endswith(("queue", "queue[DA]")):
            continue
        target = name.removeprefix("to_")
        label = f'{{target="{target}"}}'
        queues = [found.get(f"{name} {kind}", {}) for kind in ("queue", "queue[DA]")]
        yield f"sovereign_log_queue_lines{label} {sum(int(queue.get('size', 0)) for queue in queues)}"
        yield f"sovereign_log_lost_lines_total{label} {sum(int(queue.get(why, 0)) for queue in queues for why in ('discarded.full', 'discarded.nf'))}"
        yield f"sovereign_log_sent_lines_total{label} {int(told.get('processed', 0))}"
        yield f"sovereign_log_suspended{label} {int(int(told.get('suspended', 0)) > int(told.get('resumed', 0)))}"
        yield f"sovereign_log_queue_bytes{label} {sum(file.stat().st_size for file in state.glob(f'{name}.0*'))}"
        refused = state / f"refused_{target}"
        yield f"sovereign_log_refused_bytes{label} {refused.stat().st_size if refused.exists() else 0}"


if __name__ == "__main__":
    for line in metrics(Path(sys.argv[1]), int(sys.argv[2])):
        print(line)
