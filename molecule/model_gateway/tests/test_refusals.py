"""What the gateway refuses, and how. Beside each refusal a good request from the same place is answered."""

from __future__ import annotations

import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gateway_client import Answer, chat, counters, exchange, http, key_of, wait_until

from lab.testing import tls_faults

GOOD = "core-banking"
LIMIT = 16 * 1024 * 1024


def at_home(*pieces: bytes | tuple[float, bytes]) -> Answer:
    return exchange("hq-gw2", "hq-gw1", *pieces)


def twin(model: str = "assistant") -> None:
    answer = at_home(http(chat(model), key=key_of(GOOD)))
    assert answer.status == 200, answer.raw
    assert answer.json()["model"] == model


def served(answer: Answer) -> int:
    return answer.raw.count(b"HTTP/1.1 200")


@pytest.mark.parametrize("key", [None, "sk-core-banking-wrong", "", "client of another site"])
def test_no_key_or_a_wrong_one(key: str | None) -> None:
    answer = at_home(http(chat("assistant"), key=key_of("web-chat") if key == "client of another site" else key))
    assert (answer.status, answer.code) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    twin()


@pytest.mark.parametrize(
    "headers",
    [
        "Authorization: Bearer {key}\r\nAuthorization: Bearer wrong\r\n",
        "Authorization: Bearer wrong\r\nAuthorization: Bearer {key}\r\n",
        "Authorization: Basic {key}\r\n",
        "Authorization: {key}\r\n",
        "X-API-Key: {key}\r\n",
        "Proxy-Authorization: Bearer {key}\r\n",
    ],
)
def test_a_key_counts_only_as_the_one_bearer_token(headers: str) -> None:
    answer = at_home(http(chat("assistant"), headers=headers.format(key=key_of(GOOD))))
    assert (answer.status, answer.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b'{"model": "assistant',
        b"{}",
        b'{"messages": []}',
        b'{"model": null}',
        b'{"model": 7}',
        b'{"model": 1e300}',
        b'{"model": true}',
        b'{"model": ["assistant"]}',
        b'{"model": {"model": "assistant"}}',
        b'[{"model": "assistant"}]',
        b'"assistant"',
        b"{'model': 'assistant'}",
        b'\xff\xfe{"model": "assistant"}',
        b'{"x": {"model": "assistant"}}',
    ],
)
def test_a_body_without_a_model(body: bytes) -> None:
    answer = at_home(http(body, key=key_of(GOOD)))
    assert answer.status == 400, answer.raw
    assert answer.code in ("invalid_json", "invalid_model")


def test_models_that_are_not_offered_here_look_like_models_that_do_not_exist() -> None:
    unknown = at_home(http(chat("gpt-9"), key=key_of(GOOD)))
    assert (unknown.status, unknown.code) == (404, "model_not_found")
    # At home at the edge, callable from there only.
    elsewhere = at_home(http(chat("faq"), key=key_of(GOOD)))
    assert (elsewhere.status, elsewhere.body) == (404, unknown.body)


@pytest.mark.parametrize(
    "name", ["Assistant", "assistant ", "assistant\0", "assistant\n", "hq/assistant", "offer/hq/assistant", "a" * 100_000, "../assistant", "7b-chat"]
)
def test_a_name_is_taken_as_it_stands(name: str) -> None:
    answer = at_home(http(chat(name), key=key_of(GOOD)))
    assert (answer.status, answer.code) == (404, "model_not_found")


def test_a_model_that_the_key_may_not_call() -> None:
    before = counters("hq-gw1", "risk-scoring")["requests"]
    answer = at_home(http(chat("risk-scoring"), key=key_of("back-office")))
    assert (answer.status, answer.code) == (403, "model_not_allowed")
    # JSON's own ways to write the same name.
    escaped = http(chat("risk-scoring").replace(b"-", rb"\u002d"), key=key_of("back-office"))
    assert at_home(escaped).status == 403
    assert counters("hq-gw1", "risk-scoring")["requests"] == before
    twin("risk-scoring")


def statuses_of(*bodies: bytes) -> list[int]:
    """Send bodies over one connection and return the status of each answer."""
    requests = [http(body, key=key_of(GOOD), close=number == len(bodies)) for number, body in enumerate(bodies, 1)]
    found = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", at_home(*requests).raw)]
    assert len(found) == len(bodies)
    return found


@pytest.mark.parametrize("key", [b'"model"', rb'"mod\u0065l"', rb'"\u006D\u006f\u0064\u0065\u006C"'])
@pytest.mark.parametrize("order", [("assistant", "risk-scoring"), ("risk-scoring", "assistant"), ("assistant", "assistant")])
def test_two_models_in_one_body_reach_no_model(key: bytes, order: tuple[str, str]) -> None:
    """HAProxy's own reader takes the first of two equal keys, Python the last."""
    before = {model: counters("hq-gw1", model)["requests"] for model in order}
    # The first lies behind, the second before other values, so that neither place is looked at alone.
    body = b'{"messages": [{"a": "}]"}], "model": "%b", "x": {"model": "faq"}, %b : "%b", "user": "x"}' % (order[0].encode(), key, order[1].encode())
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        answer = at_home(http(body, key=key_of(GOOD), path=path))
        assert (answer.status, answer.code) == (400, "duplicate_key"), answer.raw
        assert answer.json()["error"]["param"] == "model"
    assert {model: counters("hq-gw1", model)["requests"] for model in order} == before


def test_any_key_given_twice_at_the_top_level_is_refused_and_none_below_it() -> None:
    twice = [b'{"model": "assistant", "messages": [], %b}' % keys for keys in (
        b'"n": 1, "n": 2',
        rb'"stream": false, "strea\u006d": true',
        b'"max_tokens": 1, "x": [{"max_tokens": 2}], "max_tokens": 3',
        b'"priority": 0,\n"priority": 0',
        b'"": 1, "": 2',
        b'"\xf0\x9f\x98\x80": 1, "\\ud83d\\ude00": 2',
        rb'"a\/\"": 1, "a/\u0022": 2',
        b'"messages": []',
    )]  # fmt: skip
    assert statuses_of(*twice) == [400] * len(twice)
    once = [b'{"model": "assistant", %b, "max_tokens": 1}' % rest for rest in (
        b'"metadata": {"model": "a", "model": "b"}',
        b'"messages": [{"role": "user", "content": "\\"model\\": \\"risk-scoring\\""}]',
        rb'"user": "\\", "x": "\\\",\"model\":\"y"',
        b'"messages": [{"model": "risk-scoring"}, {"model": {"model": ["model", "model"]}}]',
        b'"user": ", \'model\': "',
        b'"Model": "risk-scoring", "model ": 1, "\\u0000model": 1, "model\\u0000": 1',
        b'"x": [1, 2.5e-3, -0, true, false, null, [], {}, "", [[{"a": []}]]]',
        b'"x": %b' % json.dumps(list(range(50_000))).encode(),
        b'"x": %b' % (b"[" * 150 + b"]" * 150),
    )]  # fmt: skip
    assert statuses_of(*once) == [200] * len(once)


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"model": "assistant"}',
        pytest.param('{"model": "assistant"}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"model": "assistant"}'.encode("utf-32-le"), id="UTF-32"),
        b'{"model": "assistant"} {"model": "risk-scoring"}',
        b'{"model": "assistant"}x',
        b'{"model": "assistant", "x": NaN}',
        b'{"model": "assistant", "x": [1, -Infinity]}',
        b'{"model": "assistant", /* "x": */ "y": 1}',
        b'{"model": "assistant" // "x"\n}',
        b'{"model": "assistant", "x": \'y\'}',
        b'{"model": "assistant", x: 1}',
        b'{"model": "assistant",}',
        b'{,"model": "assistant"}',
        b'{"model": "assistant", "x": [1,]}',
        b'{"model": "assistant", "x": {"y": [}]}',
        b'{"model": "assistant", "x": 01e}',
        b'{"model": "assistant", "x" "y"}',
        b'{"model": "assistant"\xc2\xa0}',
        rb'{"model": "assist\qant"}',
        b'{"model": "assistant", "x": %b}' % (b"[" * 300 + b"]" * 300),
        pytest.param(b'{"model": "assistant", "x": [%b0]}' % (b"[]," * 300_000), id="300,000 lists"),
    ],
)
def test_what_two_readers_of_json_could_take_for_different_things(body: bytes) -> None:
    before = counters("hq-gw1", "assistant")["requests"]
    answer = at_home(http(body, key=key_of(GOOD)))
    assert (answer.status, answer.code) == (400, "invalid_json"), answer.raw
    assert counters("hq-gw1", "assistant")["requests"] == before


def test_the_gateway_and_python_agree_on_what_a_body_says() -> None:
    """Good bodies damaged at random: only those pass that Python reads, too, and then every key is there once."""
    chance = random.Random(13)  # noqa: S311 - the same bodies each time
    good = b'{"model": "assistant", "max_tokens": 1, "x\\u0061": ["\\\\", {"model": -1.5e3}, "\\"", null, true], "y": {"z": [[], 0, "}"]}}'
    pieces = [bytes([byte]) for byte in b'{}[]",:\\ 01-'] + [b'"model"', b"null", b'"x":', b'\\"']
    bodies = []
    for _ in range(300):
        body = bytearray(good)
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 2)] = chance.choice(pieces)
        bodies.append(bytes(body))
    found = statuses_of(*bodies)
    passed = [body for body, status in zip(bodies, found, strict=True) if status != 400]
    assert 30 <= len(passed) <= 270, len(passed)

    def once(pairs: list[tuple[str, object]]) -> dict[str, object] | str:
        return dict(pairs) if len(dict(pairs)) == len(pairs) else "twice"

    for body in passed:
        assert isinstance(json.loads(body), dict), body
        # Of the nested objects, only those that are given twice at the top level count.
        top = json.JSONDecoder(object_pairs_hook=once).decode(body.decode())
        assert top != "twice", body


@pytest.mark.parametrize(
    "wish",
    [
        b'"priority": -1000',
        b'"priority"\n\t: -1000',
        rb'"\u0070riorit\u0079": -1000',
        rb'"pri\u006Fr\u0069\u0074y": -1000',
        b'"x": %b, "priority": -1000' % (b"[" * 40 + b"]" * 40),
        rb'"user": "x\\", "priority": -1000',
        pytest.param(b'"priority"%b: -1000' % (b" " * 900_000), id="blanks"),
    ],
)
def test_a_priority_in_a_request_for_embeddings(wish: bytes) -> None:
    """Of these, vLLM believes the body alone; chats and completions are told theirs by the gateway."""
    body = b'{"model": "assistant", %b}'
    answer = at_home(http(body % wish, key=key_of(GOOD), path="/v1/embeddings"))
    assert (answer.status, answer.code) == (400, "priority_not_allowed")
    for harmless in (
        rb'"user": "his \"priority\": one"',
        b'"input": ["priority", ":"]',
        rb'"user": "\\\"priority\": 1"',
        b'"my_priority": 1',
        b'"priority_": 1',
    ):
        assert at_home(http(body % harmless, key=key_of(GOOD), path="/v1/embeddings")).status == 200, harmless


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/../v1/chat/completions",
        "/v1/./chat/completions",
        "/v1/chat/completions/",
        "/v1/chat%2Fcompletions",
        "/v1/%63hat/completions",
        "/v1/chat/completions%00",
        "/v1/chat/completions;x",
        "/V1/chat/completions",
        "/v1/chat/completions\\",
        "/v1",
        "/v1/audio/transcriptions",
        "/v1/load_lora_adapter",
        "/invocations",
        "/metrics",
        "/health/models/assistant",
        "/stats",
        "*",
    ],
)
def test_only_three_paths_lead_anywhere(path: str) -> None:
    answer = at_home(http(chat("assistant"), key=key_of(GOOD), path=path))
    assert answer.status in (400, 404), answer.raw
    if answer.status == 404:
        assert answer.code == "unknown_url"


@pytest.mark.parametrize(
    ("method", "path", "allow"), [("GET", "/v1/chat/completions", "POST"), ("PUT", "/v1/completions", "POST"), ("POST", "/v1/models", "GET")]
)
def test_methods(method: str, path: str, allow: str) -> None:
    answer = at_home(http(chat("assistant"), key=key_of(GOOD), method=method, path=path))
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", allow)


def test_an_absolute_url_and_a_query_are_passed_on_as_the_plain_path() -> None:
    for path in ("https://gateway/v1/chat/completions?x=1", "/v1/chat/completions?x=/../invocations"):
        answer = at_home(http(chat("assistant"), key=key_of(GOOD), path=path))
        assert answer.status == 200, answer.raw
        assert answer.json()["stub"]["path"] == "/v1/chat/completions"


def body_of(length: int) -> bytes:
    """A chat request of so many bytes, most of them an image."""
    image = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,"}}
    body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, image]}]}).encode()
    return body.replace(b"base64,", b"base64," + b"A" * (length - len(body)))


def is_too_large(answer: Answer) -> bool:
    """Whether a body was refused for its size. A client that goes on sending may lose the answer: the gateway's host resets the connection."""
    lost = {"ConnectionResetError", "BrokenPipeError", "SSLEOFError"}
    return (answer.status, answer.code) == (413, "request_too_large") if answer.raw else answer.failure in lost


def test_a_body_that_is_too_large() -> None:
    key = key_of(GOOD)
    large = at_home(http(body_of(LIMIT + 1), key=key))
    assert is_too_large(large), large
    # Refused by what it announces, before it is sent.
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
    announced = at_home(f"{head}Connection: close\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode())
    assert (announced.status, announced.code) == (413, "request_too_large")
    assert announced.moments[0] < 1
    # Or, where it announces nothing, when it has grown too large.
    chunks = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    grown = at_home(f"{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks * 260 + b"0\r\n\r\n")
    assert (grown.status, grown.code) == (413, "request_too_large")
    # The largest that is allowed, either way.
    body = body_of(LIMIT)
    assert len(body) == LIMIT
    assert at_home(http(body, key=key)).status == 200
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert at_home(f"{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunked).status == 200


def test_an_image_in_a_chat_passes_at_home_and_over_the_vpn() -> None:
    """The largest that Dify sends: 10 MiB, in base64."""
    body = body_of(4 * -(-10 * 1024 * 1024 // 3) + 100_000)
    for source, target, client in (("hq-gw2", "hq-gw1", GOOD), ("edge-gw1", "edge-gw1", "web-chat")):
        answer = exchange(source, target, http(body, key=key_of(client)))
        assert answer.status == 200, answer.raw[:500]
        assert answer.json()["stub"]["headers"]["content-length"] == str(len(body))
    # The edge's gateway passes on what the one at home would take, and no more.
    for vpn, target in ((False, "edge-gw1"), (True, "hq-gw1")):
        assert exchange("edge-gw1", target, http(body_of(LIMIT), key=key_of("web-chat")), vpn=vpn).status == 200
        above = exchange("edge-gw1", target, http(body_of(LIMIT + 1), key=key_of("web-chat")), vpn=vpn)
        assert is_too_large(above), above


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_have_places_of_their_own_and_take_none_from_small_ones(chunked: bool) -> None:
    """Three places in this scenario."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key_of(GOOD)}\r\nConnection: close\r\n"
    large, small = (chat("assistant", user="x" * length, stub_sleep=20) for length in (2_000_000, 900_000))

    def ask(body: bytes) -> Answer:
        if not chunked:
            return at_home(http(body, key=key_of(GOOD)))
        return at_home(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    before = counters("hq-gw1", "assistant")["running"] + counters("hq-gw2", "assistant")["running"]
    with ThreadPoolExecutor(7) as pool:
        held = [pool.submit(ask, large) for _ in range(3)] + [pool.submit(ask, small) for _ in range(4)]

        def running() -> int:
            return counters("hq-gw1", "assistant")["running"] + counters("hq-gw2", "assistant")["running"] - before

        wait_until(lambda: running() == 7, "all are being answered", 15)
        refused = ask(large)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "too_many_large_requests", "1")
        twin()
    assert [answer.result().status for answer in held] == [200] * 7
    assert ask(chat("assistant", user="x" * 2_000_000)).status == 200, "places are given back"


def test_bodies_that_take_long_to_read_do_not_hold_up_others() -> None:
    """HAProxy serves other requests between the steps in which a body is read."""
    numbers = b'{"model": "assistant", "prompt": [' + b"12345, " * 2_000_000 + b"1]}"
    escapes = chat("assistant", user='"' * 900_000 + "x" * 14_000_000)
    with ThreadPoolExecutor() as pool:
        long = [
            pool.submit(at_home, http(numbers, key=key_of(GOOD), path="/v1/completions")),
            pool.submit(at_home, http(escapes, key=key_of(GOOD))),
        ]
        while not all(one.done() for one in long):
            begun = time.monotonic()
            twin()
            assert time.monotonic() - begun < 10
    assert [one.result().status for one in long] == [200, 200]
    # More of either than any text has.
    for body in (chat("assistant", user='"' * 1_100_000), b'{"model": "assistant", "seed": 1%b}' % (b"0" * 200)):
        answer = at_home(http(body, key=key_of(GOOD)))
        assert (answer.status, answer.code) == (400, "invalid_json")


def test_trailers_reach_no_model_server() -> None:
    """A model server takes them for headers: vLLM would choose an engine by them."""
    body = chat("assistant")
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n{more}\r\n"
    chunks = b"%x\r\n%b\r\n%x;x=y\r\n%b\r\n0\r\n" % (7, body[:7], len(body) - 7, body[7:])
    trailers = b"X-data-parallel-rank: 7\r\nendpoint-load-metrics-format: json\r\n"
    # The listener of the site, the same by way of the edge, and the one for peers.
    for source, target, vpn, client in (
        ("hq-gw2", "hq-gw1", False, GOOD),
        ("edge-gw1", "edge-gw1", False, "web-chat"),
        ("edge-gw1", "hq-gw1", True, "web-chat"),
    ):
        for more in ("", "Trailer: X-data-parallel-rank\r\nTE: trailers\r\n"):
            start = head.format(key=key_of(client), more=f"Transfer-Encoding: chunked\r\n{more}").encode()
            before = counters("hq-gw1", "assistant")["requests"] + counters("hq-gw2", "assistant")["requests"]
            for end in (trailers, b"a:\r\n", b"Host: x\r\nContent-Length: 3\r\n"):
                # At once, and when a gateway that does not wait would have passed the body on.
                for sent in ([start + chunks + end + b"\r\n"], [start + chunks, (0.3, end), (0.3, b"\r\n")]):
                    answer = exchange(source, target, *sent, vpn=vpn)
                    assert (answer.status, answer.code) == (400, "trailers_not_allowed"), (target, more, end, answer.raw)
            assert counters("hq-gw1", "assistant")["requests"] + counters("hq-gw2", "assistant")["requests"] == before
            plain = exchange(source, target, start + chunks + b"\r\n", vpn=vpn)
            assert plain.status == 200, plain.raw
            assert not {"trailer", "te", "x-data-parallel-rank"} & set(plain.json()["stub"]["headers"])
    # So many that they do not fit beside the body. What follows a body of known length is another request.
    start = head.format(key=key_of(GOOD), more="Transfer-Encoding: chunked\r\n").encode()
    for amount in (1_000, 1_000_000):
        answer = at_home(start + chunks + b"X-A: " + b"x" * amount + b"\r\nX-data-parallel-rank: 7\r\n\r\n")
        assert 400 <= answer.status < 500, answer.raw[:300]
    twin()


def test_headers_that_are_too_large() -> None:
    answer = at_home(http(chat("assistant"), key=key_of(GOOD), headers=f"X-Padding: {'x' * 40_000}\r\n"))
    assert (answer.status, answer.code) == (431, "headers_too_large")
    assert at_home(http(chat("assistant"), key=key_of(GOOD), headers=f"X-Padding: {'x' * 20_000}\r\n")).status == 200


def test_a_client_that_is_slow() -> None:
    request = http(chat("assistant"), key=key_of(GOOD))
    with ThreadPoolExecutor() as pool:
        # One byte now and then keeps no connection open: the whole body counts.
        drip = pool.submit(at_home, request[:-40], *((0.5, request[-40 + i : -39 + i]) for i in range(20)))
        silent_in_headers = pool.submit(at_home, request[:60])
        in_time = pool.submit(at_home, request[:-40], (1.5, request[-40:]))
    assert (drip.result().status, drip.result().code) == (408, "request_timeout")
    assert 2.5 < drip.result().moments[0] < 5
    assert silent_in_headers.result().status == 408
    assert 2.5 < silent_in_headers.result().moments[0] < 5
    assert in_time.result().status == 200


def test_requests_hidden_in_a_body_are_requests_of_their_own() -> None:
    before = counters("hq-gw1", "risk-scoring")["requests"] + counters("hq-gw1", "ledger")["requests"]
    hidden = http(chat("risk-scoring"), key=key_of("back-office"))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key_of('back-office')}\r\n"
    body = chat("assistant")
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    for framing in (
        f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked",
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(chunked) + len(hidden)}",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        f"Content-Length: {len(chunked)}\r\nContent-Length: {len(chunked) + len(hidden)}",
        f"Content-Length: +{len(chunked)}",
    ):
        answer = at_home(f"{head}{framing}\r\n\r\n".encode() + chunked + hidden)
        assert served(answer) <= 1, (framing, answer.raw)
    assert counters("hq-gw1", "risk-scoring")["requests"] + counters("hq-gw1", "ledger")["requests"] == before


def test_other_versions_of_http() -> None:
    key = key_of(GOOD)
    body = chat("assistant")
    old = at_home(f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert old.status == 200
    assert at_home(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0").status in (0, 400)
    assert at_home(b"\x16\x03garbage\r\n\r\n").status in (0, 400)
    twin()


def test_refusals_hold_no_connection_that_is_still_good() -> None:
    key = key_of(GOOD)
    one = http(chat("gpt-9"), key=key, close=False)
    answer = at_home(one, (0.1, one), (0.1, http(chat("assistant"), key=key)))
    assert answer.raw.count(b"HTTP/1.1 404") == 2
    assert answer.raw.count(b"HTTP/1.1 200") == 1


def test_a_key_above_its_rate_is_held_to_it_and_its_neighbour_is_not() -> None:
    """Tier ``metered``: 5 requests a second, 10 at once."""
    request = http(chat("assistant", max_tokens=1), key=key_of("metered"), close=False)
    flood = at_home(request, *[(0.02, request)] * 250, (0.02, http(b"", key=key_of("metered"))))
    seconds = flood.moments[-1] - flood.moments[0]
    refused, accepted = flood.raw.count(b"HTTP/1.1 429"), served(flood)
    assert refused + accepted >= 250
    assert 5 * seconds * 0.9 <= accepted <= 10 + 5 * seconds * 1.1, (accepted, seconds)
    last = flood.raw[flood.raw.index(b"HTTP/1.1 429") :]
    assert b"retry-after: 1\r\n" in last.lower().split(b"\r\n\r\n")[0] + b"\r\n"
    assert json.loads(last.split(b"\r\n\r\n", 1)[1].split(b"HTTP/1.1")[0])["error"]["code"] == "rate_limit_exceeded"
    neighbour = at_home(*[http(chat("assistant", max_tokens=1), key=key_of(GOOD), close=False)] * 30, http(chat("assistant"), key=key_of(GOOD)))
    assert served(neighbour) == 31


def test_a_request_for_many_answers_is_refused_and_one_for_several_counts_as_several() -> None:
    """Tier ``metered``: 5 requests a second, 10 at once. At most 4 answers a request in this scenario."""

    def ask(path: str, *fields: bytes, client: str = GOOD) -> Answer:
        bodies = [b'{"model": "assistant", "max_tokens": 1, %b}' % field for field in fields]
        pieces = [http(body, key=key_of(client), path=path, close=number == len(bodies)) for number, body in enumerate(bodies, 1)]
        return at_home(*pieces)

    chats, completions = "/v1/chat/completions", "/v1/completions"
    for path, fields in (
        (chats, b'"n": 5'),
        (chats, b'"n": 256'),
        (chats, b'"best_of": 5, "n": 1'),
        (completions, b'"n": 3, "prompt": ["a", "b]"]'),
        (completions, b'"prompt": [[1, 2], [3], [4], [5], [6]]'),
    ):
        many = ask(path, fields)
        assert (many.status, many.code) == (400, "too_many_answers"), (fields, many.raw)
        assert "at most 4 may be asked for" in many.json()["error"]["message"]
    for fields in (b'"n": "5"', b'"n": 5.0', b'"n": 5e0', b'"n": true', b'"best_of": [5]', b'"n": 99999999999'):
        odd = ask(chats, fields)
        assert (odd.status, odd.code) == (400, "invalid_n"), (fields, odd.raw)
    several = (b'"n": 4', b'"n": null, "best_of": 0', b'"prompt": "x"')
    assert served(ask(chats, *several)) == len(several)
    prompts = (b'"n": 2, "prompt": ["a", "b"]', b'"prompt": [1, 2, 3, 4, 5, 6]', b'"prompt": ["a", "b", "c", "d"]', b'"prompt": []')
    assert served(ask(completions, *prompts)) == len(prompts)
    # Whatever an earlier test has used up is given back within two seconds.
    time.sleep(2.5)
    flood = ask(chats, *[b'"n": 4'] * 20, client="metered")
    assert 3 <= served(flood) <= 4, flood.raw
    assert flood.raw.count(b"HTTP/1.1 429") == 20 - served(flood)


@pytest.mark.parametrize("listener", ["site", "vpn"])
def test_every_refusal_of_valid_http_is_json(listener: str) -> None:
    """HAProxy 3.0 refuses what is no HTTP before it asks any rule, with a page of its own that cannot be replaced."""
    vpn, client = listener == "vpn", "web-chat" if listener == "vpn" else GOOD
    source = "edge-gw1" if vpn else "hq-gw2"

    def ask(request: bytes) -> Answer:
        return exchange(source, "hq-gw1", request, vpn=vpn)

    body, key = chat("assistant"), key_of(client)
    good = ask(http(body, key=key, headers="".join(f"X-{number}: x\r\n" for number in range(2000))))
    assert good.status == 200
    assert len(good.json()["stub"]["headers"]) < 10
    for request, status in (
        (http(body, key=key, headers="".join(f"X-{number}: x\r\n" for number in range(6000))), 431),
        (http(body, key=key, method="TRACE"), 405),
        (http(body, key=key, method="PROPFIND"), 405),
        (http(body, key=key, method="BREW", path="/coffee"), 404),
        (http(body, key=key, headers="Expect: 200-maybe\r\n"), 200),
        (http(b"x", key=key), 400),
    ):
        answer = ask(request)
        assert answer.status == status, answer.raw
        assert answer.headers["content-type"] == "application/json"
        assert status == 200 or answer.code


@pytest.mark.parametrize(("host", "endpoint"), [("hq-gw2", "198.18.25.11:8443"), ("edge-gw1", "198.19.25.11:8444")])
def test_old_cipher_suites_are_refused(on: Any, host: str, endpoint: str) -> None:
    assert tls_faults(on(host), endpoint) == []
