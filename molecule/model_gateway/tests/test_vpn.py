"""What a gateway offers the gateways of another site: what its peer is cleared for, to the peer's own clients, and nothing more."""

from __future__ import annotations

import subprocess

import pytest
from gateway_client import CLUSTER, EXECUTE, Answer, chat, counters, exchange, http, key_of

from lab.testing import host_variables

PKI = "/etc/sovereign/pki"


def over_vpn(*pieces: bytes) -> Answer:
    return exchange("edge-gw1", "hq-gw1", *pieces, vpn=True)


def twin() -> None:
    answer = over_vpn(http(chat("assistant"), key=key_of("web-chat")))
    assert answer.status == 200, answer.raw


def test_an_edge_client_is_answered_on_premises() -> None:
    answer = exchange("edge-gw1", "edge-gw1", http(chat("assistant"), key=key_of("web-chat")))
    assert answer.status == 200, answer.raw
    assert answer.json()["model"] == "assistant"


def test_models_that_are_not_offered_to_the_peer_look_like_models_that_do_not_exist() -> None:
    before = counters("hq-gw1", "risk-scoring")["requests"]
    for ask in (over_vpn, lambda request: exchange("edge-gw1", "edge-gw1", request)):
        unknown = ask(http(chat("gpt-9"), key=key_of("web-chat")))
        assert (unknown.status, unknown.code) == (404, "model_not_found")
        # Restricted; public but kept at home.
        for model in ("risk-scoring", "ledger"):
            answer = ask(http(chat(model), key=key_of("web-chat")))
            assert (answer.status, answer.body) == (404, unknown.body)
    assert counters("hq-gw1", "risk-scoring")["requests"] == before
    twin()


@pytest.mark.parametrize(
    "body", [b'{"model": "assistant", "model": "risk-scoring", "messages": []}', b'{"model": "risk-scoring", "model": "assistant", "messages": []}']
)
def test_two_models_in_one_body(body: bytes) -> None:
    before = counters("hq-gw1", "risk-scoring")["requests"]
    for target, vpn in (("hq-gw1", True), ("edge-gw1", False)):
        answer = exchange("edge-gw1", target, http(body, key=key_of("web-chat")), vpn=vpn)
        assert (answer.status, answer.code) == (400, "duplicate_key")
    assert counters("hq-gw1", "risk-scoring")["requests"] == before
    twin()


@pytest.mark.parametrize("client", ["core-banking", "kiosk", None])
def test_only_keys_of_the_peers_clients_that_may_call_something_here(client: str | None) -> None:
    answer = over_vpn(http(chat("assistant"), key=key_of(client) if client else None))
    assert (answer.status, answer.code) == (401, "invalid_api_key")
    twin()


def test_a_peer_without_a_certificate() -> None:
    answer = exchange("edge-gw1", "hq-gw1", http(chat("assistant"), key=key_of("web-chat")), from_address="198.19.25.39", port=8444)
    assert (answer.status, answer.failure) == (0, "SSLError")
    twin()


def test_a_peer_at_a_wrong_address() -> None:
    answer = exchange("edge-gw1", "hq-gw1", http(chat("assistant"), key=key_of("web-chat")), vpn=True, from_address="198.18.25.139")
    assert (answer.status, answer.code) == (403, "not_a_peer")
    twin()


def test_a_gateway_of_the_same_site_is_no_peer_and_its_certificate_is_refused_by_tls() -> None:
    answer = exchange("hq-gw2", "hq-gw1", http(chat("assistant"), key=key_of("web-chat")), vpn=True)
    assert (answer.status, answer.failure) == (0, "SSLError")
    twin()


def test_a_peers_certificate_is_refused_by_a_model_server_of_the_other_site_by_tls() -> None:
    """No firewall stands between them here."""
    server = next(instance for instance in host_variables()["hq-gw1"]["node"]["models"] if instance["name"] == "risk-scoring")
    ask = ["curl", "--silent", "--show-error", "--max-time", "5", "--cert", f"{PKI}/host.crt", "--key", f"{PKI}/host.key", "--insecure"]
    url = f"https://{host_variables()['hq-gw1']['node']['address']}:{server['port']}/v1/models"
    answers = {
        host: subprocess.run([*EXECUTE, f"{CLUSTER}-{host}", *ask, url], capture_output=True, text=True, check=False)
        for host in ("hq-gw2", "edge-gw1")
    }
    assert "risk-scoring" in answers["hq-gw2"].stdout
    assert answers["edge-gw1"].returncode != 0
    assert answers["edge-gw1"].stdout == ""


def test_a_request_does_not_travel_on_to_a_third_site() -> None:
    answer = exchange("hq-gw1", "edge-gw1", http(chat("assistant"), key=key_of("core-banking")), vpn=True)
    assert answer.status == 401, answer.raw


def test_a_peer_asks_whether_a_model_lives() -> None:
    def health(model: str) -> Answer:
        return over_vpn(http(b"", method="GET", path=f"/health/models/{model}"))

    assert health("assistant").status == 200
    unknown = health("gpt-9")
    assert (unknown.status, unknown.code) == (404, "unknown_url")
    assert health("risk-scoring").body == unknown.body


def test_each_client_is_shown_its_own_models() -> None:
    def models(answer: Answer) -> list[str]:
        assert answer.status == 200, answer.raw
        return [model["id"] for model in answer.json()["data"]]

    request = {
        client: http(b"", method="GET", path="/v1/models", key=key_of(client)) for client in ("core-banking", "back-office", "web-chat", "kiosk")
    }
    assert models(exchange("hq-gw1", "hq-gw1", request["core-banking"])) == ["risk-scoring", "assistant", "ledger"]
    assert models(exchange("hq-gw1", "hq-gw1", request["back-office"])) == ["assistant"]
    assert models(exchange("edge-gw1", "edge-gw1", request["web-chat"])) == ["assistant", "faq"]
    assert models(exchange("edge-gw1", "edge-gw1", request["kiosk"])) == ["faq"]
    assert models(over_vpn(request["web-chat"])) == ["assistant"]
