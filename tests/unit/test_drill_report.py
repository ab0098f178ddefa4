"""What several runs of a drill say together."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from ansible_collections.sovereign.dify.plugins.module_utils.drill_report import chart, rows, summary


def run(gap: float, lost: int = 0) -> dict[str, Any]:
    return {"host": "db1", "longest_gap_s": gap, "acknowledged": 100, "failed": 3, "lost": lost, "repeated": 1}


def test_the_summary_has_minimum_median_maximum_and_what_was_lost() -> None:
    report = summary([run(9.0), run(6.5), run(7.25)], "redis", "kill", 8)
    assert report["rto_s"] == {"minimum": 6.5, "median": 7.25, "maximum": 9.0, "bar": 8}
    assert report["rpo"] == {"acknowledged": 300, "lost": 0, "repeated": 3}
    assert report["ok"]


def test_a_lost_write_or_a_slow_median_is_not_ok() -> None:
    assert not summary([run(1.0), run(1.0, lost=1)], "redis", "kill")["ok"]
    assert not summary([run(1.0), run(9.0), run(9.0)], "redis", "kill", 8)["ok"]
    assert summary([run(9.0)], "redis", "kill")["ok"]


def test_the_chart_is_svg_with_a_bar_for_each_run_and_a_line_for_the_limit() -> None:
    report = summary([run(2.0), run(4.0)], "a<b", "kill", 5)
    drawing = ElementTree.fromstring(chart(report))  # noqa: S314 (our own)
    name = "{http://www.w3.org/2000/svg}"
    bars = [float(bar.attrib["height"]) for bar in drawing.findall(f"{name}rect")[1:]]
    assert abs(bars[1] - 2 * bars[0]) < 0.3
    assert len(drawing.findall(f"{name}line")) == 2
    assert [row["gap s"] for row in rows(report)] == [2.0, 4.0]
