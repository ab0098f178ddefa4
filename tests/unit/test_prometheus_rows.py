"""Answers of Prometheus as rows."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.filter.prometheus_rows import prometheus_rows


def vector(**numbers: str) -> list[dict[str, Any]]:
    return [{"metric": {"tier": tier}, "value": [1700000000.1, number]} for tier, number in numbers.items()]


def test_each_value_of_the_label_has_a_row_with_all_columns() -> None:
    rows = prometheus_rows({"requests": vector(vip="1234.567", standard="3"), "failed": vector(vip="0")}, "tier")
    assert rows == [{"tier": "standard", "requests": 3.0, "failed": None}, {"tier": "vip", "requests": 1234.57, "failed": 0.0}]


@pytest.mark.parametrize(
    ("text", "number"),
    [("NaN", None), ("+Inf", None), ("99.98765", 99.9877), ("0.000123456789", 0.000123457), ("12345678.9", 12345679.0), ("-2.5", -2.5)],
)
def test_numbers_say_what_is_known(text: str, number: float | None) -> None:
    assert prometheus_rows({"n": vector(a=text)}, "tier") == [{"tier": "a", "n": number}]


def test_what_has_no_such_label_is_one_row() -> None:
    assert prometheus_rows({"n": [{"metric": {}, "value": [0, "7"]}], "m": []}, "site") == [{"site": "", "n": 7.0, "m": None}]


def test_two_numbers_for_one_row_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"n has more than one number for tier='a': sum it by \(tier\)"):
        prometheus_rows({"n": vector(a="1") + vector(a="2")}, "tier")
