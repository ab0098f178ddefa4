"""After all that the tests before have asked of the platform, every panel of its dashboards has something to show."""

from __future__ import annotations

from tests.lab.watched import panels, query, series

RANGE_S = 2 * 3600
EMPTY_WHERE_ALL_IS_WELL = {
    "baseline: Failed units",
    "baseline: Pending restarts",
    "dify: Restarts in the last 24 h",
    "nginx: 429 by client",
    "nginx: 5xx by status",
    "pgbackrest: Time since the last failed run",
    "pgbouncer: Paused databases",
    "vllm: Restarts in the last 24 h",
    "wireguard: Peers without a handshake for 5 minutes",
}
"""Panels that list what is wrong."""


def test_every_panel_has_something_to_show() -> None:
    found = series(sorted({expression for asked in panels().values() for expression in asked}), RANGE_S)
    empty = {title for title, asked in panels().items() if not any(found[expression] for expression in asked)}
    print(f"{len(panels())} panels with {len(found)} questions; empty: {sorted(empty)}")
    fired = query(f'count by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{RANGE_S}s]))')
    print(f"alerts that have fired meanwhile: {sorted(alert['alertname'] for alert in fired)}")
    assert empty <= EMPTY_WHERE_ALL_IS_WELL, "\n".join(sorted(empty - EMPTY_WHERE_ALL_IS_WELL))
