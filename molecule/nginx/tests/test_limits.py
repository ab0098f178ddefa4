"""How often clients may ask: each is held to its own rate, and nobody pays for a neighbour."""

from __future__ import annotations

from typing import Any

from entry_client import HERE, THERE, Tally, chat, crowd, exchange, http, key_of, log

RATES = {"standard": (20, 10), "vip": (50, 25), "anonymous": (5, 10)}
# A caller who knows what keys look like, and whose.
FORGED = f"sk-core-banking-{'x' * 43}"


def held_to(tally: Tally, tier: str) -> None:
    """Assert that somebody who asked too often got what the tier allows: its rate, and its burst once, within 5 %."""
    rate, burst = RATES[tier]
    assert tally.statuses == {200, 429}
    allowed = rate * tally.seconds + burst
    assert abs(tally.count(200) - allowed) <= 0.05 * allowed, (tally.count(200), allowed)


def test_every_key_and_every_address_is_held_to_its_own_rate_and_the_vip_does_not_notice(entry: str) -> None:
    met = crowd(
        entry,
        10,
        desk={"key": key_of("branch-desk"), "pace": 60, "source": HERE},
        office={"key": key_of("back-office"), "pace": 60, "source": THERE},
        nobody={"pace": 20, "source": HERE},
        forger={"key": FORGED, "pace": 20, "source": THERE},
        vip={"key": key_of("core-banking"), "pace": 40, "source": HERE},
    )
    held_to(met["desk"], "standard")
    held_to(met["office"], "standard")
    held_to(met["nobody"], "anonymous")
    held_to(met["forger"], "anonymous")
    assert met["vip"].statuses == {200}
    assert met["vip"].count(200) > 0.7 * 40 * 10


def test_the_vip_has_a_rate_of_its_own_which_two_addresses_share(entry: str) -> None:
    vip = {"key": key_of("core-banking"), "pace": 60}
    met = crowd(entry, 6, here=vip | {"source": HERE}, there=vip | {"source": THERE}, desk={"key": key_of("branch-desk"), "pace": 15, "source": HERE})
    held_to(Tally(sorted(met["here"].outcomes + met["there"].outcomes)), "vip")
    assert met["desk"].statuses == {200}


def test_a_refusal_says_when_to_come_back_and_reaches_no_gateway(on: Any, entry: str) -> None:
    # One after the other on one connection, faster than the limit forgets.
    enough = http(path="/v1/models", method="GET", close=False) * 20
    answer = exchange(entry, enough + http(chat(), headers="X-Request-ID: one-too-many\r\n"), source=THERE).last
    assert (answer.status, answer.code, answer.json()["error"]["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert int(answer.headers["retry-after"]) >= 1
    line = log(on(entry), request_id="one-too-many")[-1]
    assert (line["limit"], line["upstream"], line["client"]) == ("REJECTED", "", "")
    # Beside it, at the same time and from the same address, somebody who is known.
    assert exchange(entry, http(chat(), key=key_of("back-office")), source=THERE).status == 200
