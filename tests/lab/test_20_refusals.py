"""The restricted model from the edge, by every way we could think of. Beside each refusal stands a twin that succeeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.testing import host_variables
from tests.lab.conftest import CA, CLUSTER, PORTS, REFUSED, api_key, execute, python

Ask = Callable[..., dict[str, Any]]
Curl = Callable[..., tuple[int, str]]
Entry = Callable[[str], tuple[str, str]]

PKI = "/etc/sovereign/pki"
HOME_PORT, VPN_PORT = PORTS["model_gateway"], PORTS["model_gateway_vpn"]
VPN_LISTENER = ["--cacert", CA, "--cert", f"{PKI}/host.crt", "--key", f"{PKI}/host.key"]


def chat(model: str, extra: str = "") -> str:
    """Body of a chat request; ``extra`` is put in before the end, as it stands."""
    body = json.dumps({"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]})
    return body[:-1] + extra + "}"


def post(curl: Curl, host: str, url: str, body: str, key: str, *arguments: str) -> tuple[int, str]:
    headers = ["--header", f"Authorization: Bearer {key}", "--header", "Content-Type: application/json"]
    return curl(host, *headers, "--data-binary", "@-", *arguments, url, stdin=body)


def edge_entry(entry: Entry) -> tuple[str, list[str]]:
    url, address = entry("edge-gw1")
    return f"{url}/v1/chat/completions", ["--cacert", CA, "--resolve", f"{url.removeprefix('https://')}:443:{address}"]


def vllm_port(model: str) -> int:
    return next(int(m["port"]) for variables in host_variables().values() for m in variables["node"].get("models", []) if m["name"] == model)


def tcp(host: str, address: str, *ports: int) -> dict[int, str]:
    """Try TCP connections from inside a host, all at the same time: ``open``, or the error's name, by port."""
    program = f"""
import json, socket
from concurrent.futures import ThreadPoolExecutor
def attempt(port):
    try:
        socket.create_connection(({address!r}, port), timeout=4).close()
        return "open"
    except OSError as error:
        return type(error).__name__
print(json.dumps(list(ThreadPoolExecutor(16).map(attempt, {ports!r}))))
"""
    return dict(zip(ports, python(host, program), strict=True))


def is_open(host: str, address: str, port: int) -> bool:
    """Tell whether a TCP connection can be made from inside a host."""
    return tcp(host, address, port)[port] == "open"


@pytest.mark.parametrize(("model", "allowed"), [("assistant", True), ("risk-scoring", False)])
def test_through_the_edges_entry(curl: Curl, entry: Entry, model: str, allowed: bool) -> None:
    url, arguments = edge_entry(entry)
    status, body = post(curl, "wan-client1", url, chat(model), api_key("web-chat"), *arguments)
    assert status == (200 if allowed else 404), body


def test_an_on_premises_key_is_worth_nothing_at_the_edge(curl: Curl, entry: Entry) -> None:
    url, arguments = edge_entry(entry)
    status, body = post(curl, "wan-client1", url, chat("risk-scoring"), api_key("core-banking"), *arguments)
    assert status == 401, body


@pytest.mark.parametrize(("model", "allowed"), [("assistant", True), ("risk-scoring", False)])
def test_through_the_edges_gateway(curl: Curl, model: str, allowed: bool) -> None:
    name = "model-gateway.edge.lab.internal"
    arguments = ["--cacert", CA, "--resolve", f"{name}:{HOME_PORT}:{host_variables()['edge-gw1']['node']['address']}"]
    status, body = post(curl, "edge-gw1", f"https://{name}:{HOME_PORT}/v1/chat/completions", chat(model), api_key("web-chat"), *arguments)
    assert status == (200 if allowed else 404), body


@pytest.mark.parametrize("gateway", ["hq-gw1", "hq-gw2"])
@pytest.mark.parametrize(("model", "allowed"), [("assistant", True), ("risk-scoring", False)])
def test_straight_at_the_vpn_listener_with_a_valid_key_and_certificate(curl: Curl, gateway: str, model: str, allowed: bool) -> None:
    node = host_variables()[gateway]["node"]
    arguments = [*VPN_LISTENER, "--resolve", f"{node['fqdn']}:{VPN_PORT}:{node['vpn_address']}"]
    status, body = post(curl, "edge-gw1", f"https://{node['fqdn']}:{VPN_PORT}/v1/chat/completions", chat(model), api_key("web-chat"), *arguments)
    assert status == (200 if allowed else 404), body


def test_the_vpn_listener_wants_the_peers_certificate_and_a_peers_key(curl: Curl) -> None:
    node = host_variables()["hq-gw1"]["node"]
    url = f"https://{node['fqdn']}:{VPN_PORT}/v1/chat/completions"
    resolve = ["--resolve", f"{node['fqdn']}:{VPN_PORT}:{node['vpn_address']}"]
    status, _ = post(curl, "edge-gw1", url, chat("assistant"), api_key("web-chat"), "--cacert", CA, *resolve)
    assert status == 0  # no client certificate, no TLS
    status, body = post(curl, "edge-gw1", url, chat("assistant"), api_key("core-banking"), *VPN_LISTENER, *resolve)
    assert status == 401, body
    status, body = post(curl, "edge-gw1", url, chat("assistant"), api_key("web-chat"), *VPN_LISTENER, *resolve)
    assert status == 200, body


@pytest.mark.parametrize(
    "trick",
    [', "model": "risk-scoring"', ', "mod\\u0065l": "risk-scoring"', ', "MODEL": "risk-scoring", "model": "risk-scoring"'],
    ids=["twice", "escaped", "case"],
)
@pytest.mark.parametrize("where", ["entry", "vpn"])
def test_by_duplicate_json_keys(curl: Curl, entry: Entry, trick: str, where: str) -> None:
    if where == "entry":
        host, (url, arguments) = "wan-client1", edge_entry(entry)
    else:
        node = host_variables()["hq-gw1"]["node"]
        host, url = "edge-gw1", f"https://{node['fqdn']}:{VPN_PORT}/v1/chat/completions"
        arguments = [*VPN_LISTENER, "--resolve", f"{node['fqdn']}:{VPN_PORT}:{node['vpn_address']}"]
    status, body = post(curl, host, url, chat("assistant", trick), api_key("web-chat"), *arguments)
    assert status in (400, *REFUSED), body
    status, body = post(curl, host, url, chat("assistant", ', "user": "risk-scoring"'), api_key("web-chat"), *arguments)
    assert status == 200, body


def test_by_tcp_to_vllms_port() -> None:
    address, port = host_variables()["hq-gpu1"]["node"]["address"], vllm_port("risk-scoring")
    assert is_open("hq-gw1", address, port)
    assert not is_open("hq-client1", address, port)
    assert not is_open("edge-gw1", address, port)
    # Even with a route of the attacker's making: through the VPN, and through the gateway's public side.
    for route in (["dev", CLUSTER["vpn"]["interface"]], ["via", host_variables()["hq-gw1"]["node"]["wan_address"]]):
        execute("edge-gw1", "ip", "route", "replace", f"{address}/32", *route)
        try:
            assert not is_open("edge-gw1", address, port), route
        finally:
            execute("edge-gw1", "ip", "route", "del", f"{address}/32")


def test_over_ipv6(curl: Curl, entry: Entry) -> None:
    def ipv6(host: str, prefix: str) -> str:
        listed = json.loads(execute(host, "ip", "-6", "-json", "addr").stdout)
        return str(next(a["local"] for link in listed for a in link["addr_info"] if a["local"].startswith(prefix)))

    gpu = ipv6("hq-gpu1", "fd00:198:18:1:")
    assert is_open("hq-client1", ipv6("hq-gw1", "fd00:198:18:1:"), 443)
    for host in ("hq-client1", "hq-gw1"):
        assert not is_open(host, gpu, vllm_port("risk-scoring"))
    url, _ = entry("edge-gw1")
    name = url.removeprefix("https://")
    arguments = ["--cacert", CA, "--resolve", f"{name}:443:[{ipv6('edge-gw1', 'fd00:198:18:9:')}]"]
    for model, expected in (("faq", 200), ("risk-scoring", 404)):
        status, body = post(curl, "wan-client1", f"{url}/v1/chat/completions", chat(model), api_key("web-chat"), *arguments)
        assert status == expected, body
    assert "open" not in tcp("wan-client1", ipv6("edge-gw1", "fd00:198:18:9:"), HOME_PORT, VPN_PORT, vllm_port("faq")).values()


def test_only_the_gateways_port_is_open_in_the_vpn() -> None:
    address = host_variables()["hq-gw1"]["node"]["vpn_address"]
    tried = tcp("edge-gw1", address, VPN_PORT, 443, HOME_PORT, PORTS["model_gateway_metrics"], 9100, vllm_port("risk-scoring"))
    assert [port for port, result in tried.items() if result == "open"] == [VPN_PORT]


def test_by_any_outside_address_of_the_on_premises_gateway() -> None:
    address = host_variables()["hq-gw1"]["node"]["wan_address"]
    assert is_open("hq-client1", host_variables()["hq-gw1"]["node"]["address"], 443)
    assert "open" not in tcp("wan-client1", address, 443, HOME_PORT, VPN_PORT).values()
