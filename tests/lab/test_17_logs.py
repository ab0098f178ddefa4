"""What the lab's hosts log, asked from the store of their site: who logs, one request along its way, and that no secret is there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from lab.testing import host_variables
from tests.lab.conftest import PORTS, STATE, api_key, execute, wait_until

PKI = "/etc/sovereign/pki"
STORE = next(name for name, variables in host_variables().items() if "log_store" in variables["node"]["groups"])
SHIPPERS = {name for name, variables in host_variables().items() if "log_shipper" in variables["node"]["groups"]}
SEARCHED_S = 7200
"""How far tests look back: longer than the lab has been there."""


def lines(text: str, *options: str) -> list[dict[str, Any]]:
    """Ask the store, through its gate, for what a LogsQL query finds.

    Args:
        text: The query.
        *options: Further options for curl.
    """
    url = f"https://{host_variables()[STORE]['node']['address']}:{PORTS['log_store']}/select/logsql/query"
    shown = ("--cacert", f"{PKI}/ca.crt", "--cert", f"{PKI}/host.pem", "--fail-with-body", "--max-time", "60")
    # By standard input: what is asked for may be a secret, or thousands of them.
    said = execute(STORE, "curl", "--silent", "--show-error", *shown, *options, url, "--data-urlencode", "query@-", stdin=text).stdout
    return [json.loads(line) for line in said.splitlines()]


def recent(text: str) -> list[dict[str, Any]]:
    """Likewise, of what was written since the lab was set up."""
    return lines(f"_time:{SEARCHED_S}s {text}")


def test_every_host_of_the_site_and_no_other_tells_what_it_logs() -> None:
    assert {host_variables()[name]["site"]["name"] for name in SHIPPERS} == {host_variables()[STORE]["site"]["name"]}
    marks = {name: f"here{time.time_ns():x}" for name in SHIPPERS}
    for name, mark in marks.items():
        execute(name, "logger", "--tag", "sshd", f"Accepted publickey for root from 198.18.1.2 port 1 ssh2: {mark}")
    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        found[:] = recent(" or ".join(marks.values()))
        return len(found) >= len(marks)

    wait_until(arrived, "a line of each host", 15, 1)
    assert {(line["host"], line["service"], line["client"], line["outcome"]) for line in found} == {
        (name, "sshd", "198.18.1.2", "Accepted") for name in SHIPPERS
    }
    hosts = {line["host"] for line in recent("* | uniq by (host)")}
    assert hosts == SHIPPERS


def test_one_request_is_found_along_its_way_by_its_name(curl: Callable[..., tuple[int, str]], entry: Callable[[str], tuple[str, str]]) -> None:
    url, address = entry("hq-gw1")
    name, key, mark = url.removeprefix("https://"), api_key("core-banking"), f"test-{time.time_ns():x}"
    # What somebody may write into a prompt, and what they may put where it does not belong.
    asked = {"model": "risk-scoring", "max_tokens": 4, "messages": [{"role": "user", "content": "13800138000 zhang.san@bank.example.com"}]}
    status, body = curl(
        *("hq-client1", "--cacert", "/tmp/lab-ca.crt", "--resolve", f"{name}:443:{address}", f"{url}/v1/chat/completions?api_key={key}"),  # noqa: S108
        *("--header", f"Authorization: Bearer {key}", "--header", f"X-Request-ID: {mark}", "--header", f"User-Agent: curl 4111111111111111 {key}"),
        *("--header", "Content-Type: application/json", "--data", json.dumps(asked)),
    )
    assert status == 200, body
    found: dict[str, dict[str, Any]] = {}

    def arrived() -> bool:
        found.update({line["service"]: line for line in recent(f"request_id:={mark}")})
        return {"nginx", "model_gateway"} <= set(found)

    wait_until(arrived, "the request's lines", 15, 1)
    assert found["nginx"]["client"] == found["model_gateway"]["client"] == "core-banking"
    assert (found["model_gateway"]["model"], found["model_gateway"]["status"], found["nginx"]["status"]) == ("risk-scoring", "200", "200")
    text = json.dumps(list(found.values()))
    assert [secret for secret in (key, "4111111111111111", "13800138000", "zhang.san") if secret in text] == []


def test_no_secret_of_the_platform_is_in_the_store() -> None:
    secrets = {path: path.read_text().strip() for path in (STATE / "secrets").rglob("*") if path.is_file()}
    texts = {str(path.relative_to(STATE)): text for path, text in secrets.items() if len(text) >= 8 and "\n" not in text}
    assert len(texts) > 20
    known = f"known{time.time_ns():x}"
    execute(STORE, "logger", "--tag", "known", f"a word that stays: {known}")
    wait_until(lambda: bool(recent(known)), "the known word", 15, 1)
    # A phrase is found wherever it stands in a line; the known word shows that one is.
    found = recent(" or ".join(json.dumps(text) for text in [*texts.values(), known]))
    kept = json.dumps(found)
    assert known in kept
    assert [name for name, text in texts.items() if text in kept] == []


SERVICES = ("nginx", "model_gateway", "postgresql", "pgbouncer", "redis", "rabbitmq", "etcd", "dify", "dify_proxy", "vllm", "keepalived", "sshd")


def test_services_are_known_by_name() -> None:
    """Whatever unit, file or identifier a line comes from, it is found by the service that its role declares."""
    counted = {line["service"]: int(line["lines"]) for line in recent("* | stats by (service) count() lines")}
    print(counted)
    assert [service for service in SERVICES if not counted.get(service)] == []
