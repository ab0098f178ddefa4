"""Why was it slow? Requests that are slow at one hop each, and what the playbook says of them, by what the hops of the lab really log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.lab.conftest import CA, STATE, api_key, execute, wait_until
from tests.lab.platform import ADDRESS, DIFY_PROXY, GATEWAY_SOCKET, HOSTS, Console, ask_haproxy, leader, session
from tests.lab.test_17_logs import recent
from tests.lab.test_46_operations import operate

GATEWAYS = ("hq-gw1", "hq-gw2")
MARK = f"{time.time_ns():x}"
"""What all ids of this run begin with."""
AT_ONCE = 6
TOKENS = 900
"""As many as the lab's models answer with at most, but for some of the question."""
PADDING_BYTES, PACE_BYTES = 400_000, 50_000
"""What the slow client sends, and how much of it in a second: eight seconds, in steps that nginx waits for."""


def ask_model(name: str, entry: tuple[str, str], *options: str, **body: Any) -> str:
    """Ask a model at the entry, by an id; give the status."""
    url, address = entry
    name_of_entry = url.removeprefix("https://")
    told = ["--cacert", CA, "--resolve", f"{name_of_entry}:443:{address}", "--header", f"Authorization: Bearer {api_key('core-banking')}"]
    told += ["--header", "Content-Type: application/json", "--header", f"X-Request-ID: {name}", "--data-binary", "@-", *options]
    shown = ["--silent", "--show-error", "--max-time", "90", "--output", "/dev/null", "--write-out", "%{http_code}"]
    asked = json.dumps({"model": "assistant", "prompt": "Why?", "max_tokens": 1} | body)
    return execute("hq-client1", "curl", *shown, *told, f"{url}/v1/completions", stdin=asked).stdout


def run_workflow(name: str, key: str) -> int:
    """Run a workflow of Dify at the entry, by an id, for a whole answer; give the status."""
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": name}
    body = {"inputs": {"query": "hello"}, "user": "u", "response_mode": "blocking"}
    with session().post(f"https://{ADDRESS}/v1/workflows/run", json=body, headers=headers, timeout=(10, 120)) as response:
        return response.status_code


@contextmanager
def one_at_a_time(socket: str, server: str, hosts: tuple[str, ...]) -> Iterator[None]:
    """Have the HAProxy of some hosts let one request through to a server at once; as before when it ends."""
    backend, name = server.split("/")
    before = {}
    for host in hosts:
        rows = [line.split(",") for line in ask_haproxy(host, socket, "show stat").splitlines()]
        # The seventh column is the limit; empty where there is none, which the command calls 0.
        [before[host]] = [row[6] or "0" for row in rows if row[:2] == [backend, name]]
    try:
        for host in hosts:
            assert not ask_haproxy(host, socket, f"set maxconn server {server} 1").strip()
        yield
    finally:
        for host in hosts:
            ask_haproxy(host, socket, f"set maxconn server {server} {before[host]}")


def all_of(pool: ThreadPoolExecutor, kind: str, question: Callable[[str], Any]) -> list[Future[Any]]:
    """Ask as many questions at once as there are to be, each by an id of its own."""
    return [pool.submit(question, f"{MARK}-{kind}-{number}") for number in range(AT_ONCE)]


@pytest.fixture(scope="module")
def slow(entry: Callable[[str], tuple[str, str]], console: Console) -> dict[str, Any]:
    """Make requests slow at each hop, a statement slow, and one fail; give the playbook's report, and what it printed."""
    began = datetime.now(UTC) - timedelta(seconds=5)
    home = entry("hq-gw1")
    console.stub()
    # Six seconds, and four.
    calm, brisk = console.workflow("calm", 12), console.workflow("brisk", 40)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert ask_model(f"{MARK}-client", home, "--limit-rate", str(PACE_BYTES), user="x" * PADDING_BYTES), "whatever it says to so long a name"
        assert ask_model(f"{MARK}-model", home, max_tokens=TOKENS, ignore_eos=True) == "200"
        assert ask_model(f"{MARK}-wrong", home, model="nobody") == "404"
        assert run_workflow(f"{MARK}-flow", calm) == 200
        with one_at_a_time(GATEWAY_SOCKET, "model_assistant/hq-gpu1", GATEWAYS):
            asked = all_of(pool, "gateway", lambda name: ask_model(name, home, max_tokens=TOKENS, ignore_eos=True))
            assert {one.result() for one in asked} == {"200"}
        with one_at_a_time(DIFY_PROXY, "api/dify_api_1", HOSTS):
            asked = all_of(pool, "dify", lambda name: run_workflow(name, brisk))
            # A queue that is too long is refused in the end: that is slow, too.
            assert {one.result() for one in asked} <= {200, 503}
    sleep = "PGOPTIONS='-c log_min_duration_statement=500' psql -Atc 'SELECT pg_sleep(2)'"
    execute(next(leader("patroni")), "su", "-s", "/bin/sh", "postgres", "-c", sleep)
    several = {f"{MARK}-{kind}-{number}" for kind in ("gateway", "dify") for number in range(AT_ONCE)}
    names = several | {f"{MARK}-{kind}" for kind in ("client", "model", "wrong", "flow")}

    def arrived() -> bool:
        lines = recent(f'request_id:~"^{MARK}"')
        of = {service: {line["request_id"] for line in lines if line["service"] == service} for service in ("nginx", "model_gateway", "dify_proxy")}
        return of["nginx"] == names == of["model_gateway"] | of["dify_proxy"] and bool(recent('service:=postgresql "pg_sleep"'))

    wait_until(arrived, "the lines of all requests", 60, 2)
    printed = operate("slow_requests", "--limit=localhost,log_store", since=began.isoformat(timespec="seconds"), top=200)
    report: dict[str, Any] = json.loads((STATE / "reports/slow_requests-hq.json").read_text())
    report["printed"] = printed
    report["by_id"] = {one["request_id"].removeprefix(f"{MARK}-"): one for one in report["requests"]}
    return report


def test_each_slow_request_is_told_with_the_hop_that_it_was_slow_at(slow: dict[str, Any]) -> None:
    found = {name: (one["slowest"], one["hops"], one["notes"]) for name, one in slow["by_id"].items()}
    print(found)
    assert found["client"][0] == "client", found["client"]
    assert found["model"][0] in ("model_first_token", "model_rest"), found["model"]
    assert found["flow"][0] == "dify_api", found["flow"]
    # Those that came last waited for those before them.
    assert "gateway_queue" in {found[f"gateway-{number}"][0] for number in range(AT_ONCE)}, found
    assert "dify_queue" in {found[f"dify-{number}"][0] for number in range(AT_ONCE)}, found
    # Nothing contradicts itself on hosts whose clocks are one.
    planted = {name: one for name, one in found.items() if name.split("-")[0] in ("client", "model", "flow", "gateway", "dify")}
    assert {name: notes for name, (dummy, dummy, notes) in planted.items() if notes} == {}


def test_a_request_is_told_with_its_client_and_model(slow: dict[str, Any]) -> None:
    one = slow["by_id"]["model"]
    assert (one["client"], one["tier"], one["model"], one["status"], one["path"]) == ("core-banking", "vip", "assistant", 200, "/v1/completions")
    assert sum(one["hops"].values()) == pytest.approx(1000 * one["seconds"], abs=100)


def test_a_slow_statement_is_told_without_its_values(slow: dict[str, Any]) -> None:
    [one] = [one for one in slow["statements"] if "pg_sleep" in one["statement"]]
    assert (one["statement"], one["database"], one["user"]) == ("SELECT pg_sleep(?)", "postgres", "postgres")
    assert one["worst_ms"] >= 2000


def test_errors_are_told_by_their_cause(slow: dict[str, Any]) -> None:
    causes = {(one["service"], one["cause"]): one for one in slow["errors"]}
    assert causes["nginx", "status 404"]["count"] >= 1, causes
    assert causes["model_gateway", "status 404, the proxy answered at the request (LR)"]["count"] >= 1, causes


def test_what_is_printed_shows_a_bar_for_each(slow: dict[str, Any]) -> None:
    for one in slow["requests"][:5]:
        assert len(one["bar"]) == 40
        assert one["bar"] in slow["printed"]
