"""One request across the bank split: who answers what, from where, and how the answer comes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from lab.testing import vllm_metric
from tests.lab.conftest import CLUSTER, api_key, execute, wait_until

Ask = Callable[..., dict[str, Any]]
Entry = Callable[[str], tuple[str, str]]


def test_the_assistant_is_asked_at_the_edge_and_answers_on_premises_chunk_by_chunk(ask: Ask, entry: Entry) -> None:
    before = vllm_metric("hq-gpu1", "assistant", "request_success_total")
    seen = []
    for dummy in range(8):
        outcome = ask("wan-client1", *entry("edge-gw1"), "assistant", api_key("web-chat"), max_tokens=900)
        assert outcome["ok"], outcome
        assert outcome["answered_by"] == "assistant"
        # One event a token: had anything on the way buffered, they would come at once, or in heaps of 14 and more, as nginx's buffers hold. Moments
        # are told apart by the millisecond. What buffers does so each time; a reader who has to wait for one of two busy cores only now and then.
        moments = len({round(moment) for moment in outcome["times_ms"]})
        seen.append({"events": outcome["chunks"], "moments": moments, **{key: outcome[key] for key in ("spread_ms", "total_ms")}})
        if outcome["chunks"] > 200 and moments > outcome["chunks"] / 10 and outcome["spread_ms"] > outcome["total_ms"] * 0.4:
            break
    else:
        pytest.fail(f"never chunk by chunk: {seen}")
    assert vllm_metric("hq-gpu1", "assistant", "request_success_total") > before


def test_the_restricted_model_answers_an_on_premises_client_with_two_way_tensor_parallelism(ask: Ask, entry: Entry) -> None:
    for gateway in ("hq-gw1", "hq-gw2"):
        outcome = ask("hq-client1", *entry(gateway), "risk-scoring", api_key("core-banking"))
        assert outcome["ok"], outcome
    # vLLM names its tensor-parallel processes: two workers of one engine.
    workers = execute("hq-gpu1", "sh", "-c", "systemctl status vllm@risk-scoring --no-pager --full").stdout
    assert len(re.findall(r"VLLM::Worker_TP[01]", workers)) == 2, workers


def test_the_edge_serves_its_own_model_with_the_vpn_cut_and_finds_back(ask: Ask, entry: Entry, edge_without_vpn: None) -> None:
    key = api_key("web-chat")
    wait_until(lambda: ask("wan-client1", *entry("edge-gw1"), "assistant", key)["status"] in (502, 503, 504), "the assistant is out of reach", 30)
    outcome = ask("wan-client1", *entry("edge-gw1"), "faq", key)
    assert outcome["ok"], outcome
    execute("edge-gw1", "systemctl", "start", f"wg-quick@{CLUSTER['vpn']['interface']}")
    wait_until(lambda: ask("wan-client1", *entry("edge-gw1"), "assistant", key)["ok"], "the assistant is back", 60)


def test_every_entry_names_the_models_a_key_may_call(curl: Callable[..., tuple[int, str]], entry: Entry) -> None:
    url, address = entry("edge-gw1")
    name = url.removeprefix("https://")
    status, body = curl(
        *("wan-client1", "--cacert", "/tmp/lab-ca.crt", "--resolve", f"{name}:443:{address}"),  # noqa: S108
        *("--header", f"Authorization: Bearer {api_key('web-chat')}", f"{url}/v1/models"),
    )
    assert status == 200, body
    assert sorted(re.findall(r'"id": ?"([^"]+)"', body)) == ["assistant", "faq"]
