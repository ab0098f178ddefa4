"""What a client gets for what it did wrong: the right status, a JSON body in OpenAI's form, and a platform that goes on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lab.testing import host_variables
from tests.lab.conftest import CA, PORTS, api_key, python

Curl = Callable[..., tuple[int, str]]
Entry = Callable[[str], tuple[str, str]]

GOOD = '{"model": "faq", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}'
CASES = {
    "no key": (None, GOOD, 401),
    "wrong key": ("sk-web-chat-wrong", GOOD, 401),
    "unknown model": ("", GOOD.replace("faq", "gpt-9"), 404),
    "broken JSON": ("", '{"model": "faq", ', 400),
    "no JSON at all": ("", "hello", 400),
    "no model": ("", '{"messages": []}', 400),
    "model is a number": ("", GOOD.replace('"faq"', "7"), 400),
    "17 MB body": ("", GOOD[:-1] + ', "user": "' + "x" * 17_000_000 + '"}', 413),
}


@pytest.mark.parametrize("place", ["entry", "gateway"])
@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_named_in_json(curl: Curl, entry: Entry, case: str, place: str) -> None:
    key, body, expected = CASES[case]
    if place == "entry":
        host, (url, address), port = "wan-client1", entry("edge-gw1"), 443
    else:
        host, url, port = "edge-gw1", "https://model-gateway.edge.lab.internal", PORTS["model_gateway"]
        address = host_variables()["edge-gw1"]["node"]["address"]
    name = url.removeprefix("https://")
    arguments = ["--cacert", CA, "--resolve", f"{name}:{port}:{address}", "--header", "Content-Type: application/json", "--data-binary", "@-"]
    if key is not None:
        arguments += ["--header", f"Authorization: Bearer {key or api_key('web-chat')}"]
    status, answer = curl(host, *arguments, f"https://{name}:{port}/v1/chat/completions", stdin=body)
    assert status == expected, answer[:500]
    error = json.loads(answer)["error"]
    assert error["message"]
    assert set(error) >= {"message", "type", "code"}
    # The twin: the same place answers a good request at once.
    arguments = [argument for argument in arguments if not argument.startswith("Authorization")]
    status, answer = curl(
        host,
        *arguments[: arguments.index("--data-binary") + 2],
        "--header",
        f"Authorization: Bearer {api_key('web-chat')}",
        f"https://{name}:{port}/v1/chat/completions",
        stdin=GOOD,
    )
    assert status == 200, answer


def test_a_slow_client_is_timed_out(entry: Entry) -> None:
    url, address = entry("edge-gw1")
    program = f"""
import json, socket, ssl, time
context = ssl.create_default_context(cafile={CA!r})
raw = context.wrap_socket(socket.create_connection(({address!r}, 443), timeout=90), server_hostname={url.removeprefix("https://")!r})
raw.sendall(b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: {url.removeprefix("https://")}\\r\\nAuthorization: Bearer {api_key("web-chat")}\\r\\n"
            b"Content-Type: application/json\\r\\nContent-Length: 1000\\r\\n\\r\\n{{")
started, answer = time.monotonic(), b""
try:
    while chunk := raw.recv(4096):
        answer += chunk
except OSError as error:
    answer += type(error).__name__.encode()
print(json.dumps([time.monotonic() - started, answer.decode(errors="replace")]))
"""
    seconds, answer = python("wan-client1", program, timeout=100)
    assert seconds < 60
    assert answer == "" or " 408 " in answer.splitlines()[0], answer
