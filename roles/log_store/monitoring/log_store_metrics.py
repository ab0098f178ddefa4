"""Print what VictoriaLogs' own metrics do not tell: how far back its data go, and what it may take.

``log_store_metrics.py <directory of the data> <days of retention> <bytes that the data may take>``
"""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path


def metrics(directory: Path, days: int, limit: int) -> Iterator[str]:
    """Yield the metrics, a line each."""
    yield f"sovereign_log_store_retention_days {days}"
    yield f"sovereign_log_store_max_bytes {limit}"
    partitions = sorted(path.name for path in (directory / "partitions").glob("*") if re.fullmatch(r"\d{8}", path.name))
    if partitions:
        oldest = datetime.strptime(partitions[0], "%Y%m%d").replace(tzinfo=UTC)
        yield f"sovereign_log_store_oldest_day_time_seconds {oldest.timestamp():.0f}"


if __name__ == "__main__":
    for line in metrics(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
        print(line)
