# SPDX-License-Identifier: GPL-3.0-or-later
"""What several runs of a drill say together: a summary, the rows of a table, and a chart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

Run = Mapping[str, Any]
"""What ``ledger_load.py`` reports of one run, with the ``host`` that the fault befell."""


def summary(runs: Sequence[Run], service: str, fault: str, bar_s: float = 0.0) -> dict[str, Any]:
    """Sum runs up.

    Args:
        runs: At least one run.
        service: Service that was loaded.
        fault: What befell its leader.
        bar_s: Median recovery time that is still good enough, in seconds; 0 means that there is none.

    Returns:
        ``ok``; ``rto_s`` with minimum, median and maximum of the longest time without an acknowledgement, in seconds; ``rpo`` with the number of
        acknowledged writes and of those lost; and the runs.
    """
    gaps = [float(run["longest_gap_s"]) for run in runs]
    median = statistics.median(gaps)
    lost = sum(int(run["lost"]) for run in runs)
    return {
        "service": service,
        "fault": fault,
        "ok": lost == 0 and (not bar_s or median <= bar_s),
        "rto_s": {"minimum": round(min(gaps), 2), "median": round(median, 2), "maximum": round(max(gaps), 2), "bar": bar_s or None},
        "rpo": {"acknowledged": sum(int(run["acknowledged"]) for run in runs), "lost": lost, "repeated": sum(int(run["repeated"]) for run in runs)},
        "runs": [dict(run) for run in runs],
    }


def rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give one row a run for people to read."""
    return [
        {
            "run": number,
            "host": run["host"],
            "gap s": round(float(run["longest_gap_s"]), 2),
            "acknowledged": run["acknowledged"],
            "failed": run["failed"],
            "lost": run["lost"],
            "repeated": run["repeated"],
        }
        for number, run in enumerate(report["runs"], start=1)
    ]


def chart(report: Mapping[str, Any]) -> str:
    """Draw the recovery time of each run as a bar, and the bar to keep under as a line: an SVG document."""
    bars, limit = [float(run["longest_gap_s"]) for run in report["runs"]], report["rto_s"]["bar"] or 0.0
    top = max([*bars, limit, 0.1]) * 1.15
    width, height, base, left = 90 + 70 * len(bars), 260, 220, 50

    def y(value: float) -> float:
        return round(base - value / top * 170, 1)

    title = f"{report['service']}, {report['fault']}: seconds without an acknowledged write; {report['rpo']['lost']} lost"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="22">{escape(title)}</text>',
        f'<line x1="{left}" y1="{base}" x2="{width - 10}" y2="{base}" stroke="black"/>',
    ]
    for number, value in enumerate(bars):
        x = left + 15 + 70 * number
        parts.append(f'<rect x="{x}" y="{y(value)}" width="40" height="{round(base - y(value), 1)}" fill="#4a7ab5"/>')
        parts.append(f'<text x="{x + 20}" y="{y(value) - 4}" text-anchor="middle">{value:.1f}</text>')
        parts.append(f'<text x="{x + 20}" y="{base + 16}" text-anchor="middle">{number + 1}</text>')
    if limit:
        parts.append(f'<line x1="{left}" y1="{y(limit)}" x2="{width - 10}" y2="{y(limit)}" stroke="#b5524a" stroke-dasharray="5 3"/>')
        parts.append(f'<text x="{left - 6}" y="{y(limit) + 4}" text-anchor="end" fill="#b5524a">{limit:g}</text>')
    return "\n".join([*parts, "</svg>", ""])
