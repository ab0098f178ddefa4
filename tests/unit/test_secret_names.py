"""A secret is found wherever it stands, and whatever the setting is called."""

from __future__ import annotations

import pytest
from ansible_collections.sovereign.dify.plugins.filter.secret_names import secret_names


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("DB_PASSWORD", "p/w@1xyz", True),
        ("DB", "p/w@1xyz", True),
        ("BROKER_URL", "amqp://dify:p%2Fw%401xyz@127.0.0.1:5672/dify", True),
        ("BROKER_URL", "amqp://dify:p/w%401xyz@127.0.0.1:5672/dify", True),
        ("OF_THE_OPERATOR_TOKEN", "t", True),
        ("SENTRY_DSN", "https://x@y", True),
        ("EMPTY_PASSWORD", "", False),
        ("MODE", "api", False),
        ("SHORT", "short", True),
        ("IN_A_WORD", "shortest", False),
        ("PORT", 5101, False),
    ],
)
def test_a_setting_holds_a_secret_or_not(name: str, value: object, held: bool) -> None:
    assert secret_names({name: value}, ["p/w@1xyz", "short", ""]) == ([name] if held else [])


def test_names_come_in_order() -> None:
    assert secret_names({"Z_TOKEN": "1", "A": "s1"}, ["s1"]) == ["A", "Z_TOKEN"]
