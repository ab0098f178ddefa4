"""What clients meet at the entry: names, paths, refusals, streams, and what is behind."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

from entry_client import ADDRESS, BALANCER, HERE, NAME, OUTSIDE, THERE, Answer, chat, exchange, http, key_of, log

from lab.testing import tls_faults

LIMIT = 16 * 1024 * 1024
TRUSTED = "curl --silent --show-error --noproxy ai.nginx.test --cacert /etc/sovereign/pki/ca.crt"


def announced(length: int, key: str) -> bytes:
    """The head of a request that announces a body of so many bytes."""
    return f"POST /v1/chat/completions HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n".encode()


def test_an_image_in_a_chat_passes_up_to_the_limit(on: Any, entry: str) -> None:
    """The largest that Dify sends is 10 MiB, in base64."""
    for length in (4 * -(-10 * 1024 * 1024 // 3) + 100_000, LIMIT):
        body = chat(user="")
        body = body.replace(b'"user": ""', b'"user": "' + b"A" * (length - len(body)) + b'"')
        answer = exchange(entry, http(body, key=key_of("core-banking")))
        assert answer.status == 200, answer.raw[:500]
        assert answer.json()["stub"]["headers"]["content-length"] == str(length)
    assert on(entry).check_output("find /var/lib/nginx/body -type f") == "", "nothing of it stays on the disk"


def test_a_chat_request_is_answered_over_tls_and_http_2(on: Any, entry: str) -> None:
    command = f"{TRUSTED} --http2 --resolve {NAME}:443:{ADDRESS[entry]} --write-out '\n%%{{http_version}}'"
    command += f" --header %s --data %s https://{NAME}/v1/chat/completions"
    answer, version = on("backend").check_output(command, f"Authorization: Bearer {key_of('core-banking')}", chat().decode()).rsplit("\n", 1)
    assert version == "2"
    assert json.loads(answer)["model"] == "assistant"


def test_the_gateway_learns_the_clients_address_and_id_and_not_what_the_client_made_up(on: Any, entry: str) -> None:
    claims = "X-Forwarded-For: 10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\nForwarded: for=10.9.9.9\r\nX-Request-ID: order-4711-a\r\n"
    answer = exchange(entry, http(chat(), key=key_of("branch-desk"), headers=claims), source=THERE)
    seen = answer.json()["stub"]["headers"]
    assert (seen["x-forwarded-for"], seen["x-real-ip"], seen["x-forwarded-proto"]) == (THERE, THERE, "https")
    assert "10.9.9.9" not in json.dumps(seen)
    assert seen["x-request-id"] == answer.headers["x-request-id"] == "order-4711-a"
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    (line,) = log(on(entry), request_id="order-4711-a")
    assert (line["client"], line["tier"], line["address"], line["status"]) == ("branch-desk", "standard", THERE, 200)
    assert line["upstream"].endswith(":8443")
    assert float(line["upstream_first_byte_seconds"]) <= float(line["upstream_seconds"]) <= float(line["seconds"]) + 0.002
    strange = exchange(entry, http(chat(), key=key_of("branch-desk"), headers='X-Request-ID: "};drop\r\n'))
    assert len(strange.headers["x-request-id"]) == len("0123456789abcdef") * 2


def test_a_load_balancer_in_front_is_believed_where_it_is_declared() -> None:
    ask = http(chat(), key=key_of("core-banking"), headers="X-Forwarded-For: 10.9.9.9, 10.8.8.8\r\n")
    assert exchange("debian12", ask, source=BALANCER).json()["stub"]["headers"]["x-forwarded-for"] == "10.8.8.8"
    assert exchange("debian13", ask, source=BALANCER).json()["stub"]["headers"]["x-forwarded-for"] == BALANCER


def test_a_secret_in_the_query_is_not_logged(on: Any, entry: str) -> None:
    exchange(entry, http(method="GET", path="/v1/models?key=hush-hush", headers="X-Request-ID: with-query\r\n", key=key_of("branch-desk")))
    (line,) = log(on(entry), request_id="with-query")
    assert line["path"] == "/v1/models"


def test_an_upstream_that_is_not_a_gateway_of_this_site_gets_nothing(on: Any) -> None:
    assert exchange("debian13", http(chat(), key=key_of("core-banking"))).status == 200
    # The same servers, under a name that their certificates do not bear: what an impostor with another certificate of ours would look like.
    config = "/etc/nginx/nginx.conf"
    host = on("debian13")
    swap = "s/proxy_ssl_name .*/proxy_ssl_name model-gateway.edge.nginx.test;/"
    host.check_output(f"sed --in-place=.kept '{swap}' {config} && systemctl reload nginx && sleep 1")
    try:
        refused = exchange("debian13", http(chat(), key=key_of("core-banking")))
        assert (refused.status, refused.code) == (502, "bad_gateway")
    finally:
        host.check_output(f"mv {config}.kept {config} && systemctl reload nginx && sleep 1")


def test_a_stream_arrives_token_by_token(entry: str) -> None:
    answer = exchange(entry, http(chat(stream=True, max_tokens=12), key=key_of("core-banking")))
    assert answer.raw.count(b"data: ") == 13
    assert answer.body.rstrip().endswith(b"0")
    assert len(answer.moments) >= 12
    assert answer.moments[-1] - answer.moments[0] > 0.9
    gaps = [later - earlier for earlier, later in zip(answer.moments, answer.moments[1:], strict=False)]
    assert sorted(gaps)[len(gaps) // 2] < 0.3


def test_a_stream_over_http_2_arrives_token_by_token(on: Any, entry: str) -> None:
    stamp = "import sys, time\nfor line in sys.stdin.buffer: print(time.monotonic(), line)"
    command = f"{TRUSTED} --no-buffer --http2 --resolve {NAME}:443:{ADDRESS[entry]} --header %s --data %s https://{NAME}/v1/chat/completions"
    command += " | python3 -c %s"
    body = chat(stream=True, max_tokens=12).decode()
    lines = on("backend").check_output(command, f"Authorization: Bearer {key_of('core-banking')}", body, stamp).splitlines()
    moments = [float(line.split()[0]) for line in lines if "data:" in line]
    assert len(moments) == 13
    assert moments[-1] - moments[0] > 0.9


def test_what_is_wrong_is_told_in_openais_form(entry: str) -> None:
    key = key_of("core-banking")
    cases: dict[tuple[int, str], Answer] = {
        (400, "bad_request"): exchange(entry, b"GARBAGE\r\n\r\n"),
        (404, "unknown_url"): exchange(entry, http(path="/admin", method="GET", key=key)),
        (405, "method_not_allowed"): exchange(entry, http(path="/v1/models", method="TRACE", key=key)),
        (413, "request_too_large"): exchange(entry, announced(LIMIT + 1, key)),
        (414, "url_too_long"): exchange(entry, http(path="/" + "x" * 9000, method="GET", key=key)),
        (421, "unknown_host"): exchange(entry, http(chat(), key=key, host="elsewhere.example")),
        (431, "headers_too_large"): exchange(entry, http(headers="".join(f"X-{n}: {'x' * 4000}\r\n" for n in range(12)))),
        (400, "https_required"): exchange(entry, http(chat(), key=key), tls=False),
        (505, "http_version_not_supported"): exchange(entry, b"GET / HTTP/9.1\r\n\r\n"),
    }
    for (status, code), answer in cases.items():
        assert (answer.status, answer.code) == (status, code), answer.raw
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"]
    assert exchange(entry, http(path="/.error/429", method="GET")).status == 404
    # A body of exactly the largest size passes, and so do the gateway's own refusals.
    assert exchange(entry, http(chat().ljust(1_048_576), key=key)).status == 200
    refusal = exchange(entry, http(json.dumps({"model": "unheard-of"}).encode(), key=key))
    assert (refusal.status, refusal.json()["error"]["type"]) == (404, "NotFoundError")


def test_the_entry_answers_to_its_own_names_only_and_shows_a_certificate_for_them(on: Any, entry: str) -> None:
    for name in (NAME, f"{entry}.nginx.test"):
        assert exchange(entry, http(path="/healthz", method="GET", host=name), name=name).json() == {"status": "ok"}
    assert on("backend").check_output(f"{TRUSTED} --noproxy '*' https://{ADDRESS[entry]}/healthz") == '{"status":"ok"}'
    assert exchange(entry, http(path="/healthz", method="GET", host="elsewhere.example")).status == 421
    assert exchange(entry, http(path="/healthz", method="GET"), name="elsewhere.example").failure == "SSLCertVerificationError"


def test_old_tls_is_refused(on: Any, entry: str) -> None:
    command = "openssl s_client -brief -connect %s:443 -CAfile /etc/sovereign/pki/ca.crt -verify_return_error -cipher 'ALL:@SECLEVEL=0' %s </dev/null"
    assert on("backend").run(command, ADDRESS[entry], "-tls1_2").rc == 0
    assert on("backend").run(command, ADDRESS[entry], "-tls1_1").rc != 0


def test_old_cipher_suites_are_refused(on: Any, entry: str) -> None:
    assert tls_faults(on("backend"), f"{ADDRESS[entry]}:443") == []


def test_it_listens_on_ipv6_too(on: Any, entry: str) -> None:
    assert on(entry).check_output(f"{TRUSTED} --ipv6 --resolve '{NAME}:443:[::1]' https://{NAME}/healthz") == '{"status":"ok"}'


def test_clients_from_elsewhere_do_not_get_through_the_firewall() -> None:
    ask = http(path="/healthz", method="GET")
    assert exchange("debian13", ask, source=HERE).status == 200
    assert exchange("debian13", ask, source=OUTSIDE, timeout=3).failure in ("TimeoutError", "ConnectionRefusedError")


def test_slow_clients_are_cut_off(on: Any, entry: str) -> None:
    head = http(chat(), key=key_of("core-banking"), headers="X-Request-ID: slow-client\r\n")
    with ThreadPoolExecutor() as pool:
        silent = pool.submit(exchange, entry, head[:20])
        dripping = pool.submit(exchange, entry, head[:-10], timeout=20)
        steady = pool.submit(exchange, entry, head[:-10].replace(b"slow", b"calm"), (1, head[-10:]))
    assert silent.result().status == 0
    assert 1.5 < silent.result().seconds < 8
    assert dripping.result().status == 0
    assert 1.5 < dripping.result().seconds < 8
    assert steady.result().status == 200
    (line,) = log(on(entry), request_id="slow-client")[-1:]
    assert (line["status"], line["upstream"]) == (408, "")


def test_http_is_sent_to_https_by_our_own_name() -> None:
    answer = exchange("debian12", http(path="/v1/models?x=1", method="GET", host="elsewhere.example"), port=80, tls=False)
    assert (answer.status, answer.headers["location"]) == (308, f"https://{NAME}/v1/models?x=1")
    assert exchange("debian13", http(method="GET"), port=80, tls=False, timeout=3).failure


def test_an_application_is_served_beside_the_models(application: None) -> None:
    answer = exchange("debian12", http(b"x" * 2_000_000, path="/application/upload"))
    assert answer.status == 200
    assert b"x-forwarded-proto: https" in answer.body.lower()
    assert exchange("debian12", http(b"x" * 4_200_000, path="/application/upload")).status == 413
    assert exchange("debian13", http(path="/application/upload")).status == 404
    upgrade = f"GET /application/ws HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
    conversation = exchange("debian12", upgrade, (0.5, b"one"), (0.5, b"two"), timeout=3)
    assert conversation.status == 101
    assert conversation.body == b"echo oneecho two"


def test_no_key_of_one_kind_reaches_the_other_side(application: None) -> None:
    model, own = key_of("core-banking"), "app-helpdesk0123456789abcd"
    # Generated for a client of another site, unknown here.
    foreign = f"sk-edge-desk-{'y' * 43}"

    def ask(path: str, headers: str = "", method: str = "POST") -> Answer:
        return exchange("debian12", http(path=path, headers=headers, method=method))

    unknown_path = {
        "bearer": ask("/v1/files/upload", f"Authorization: Bearer {model}\r\n"),
        "case": ask("/v1/files/upload", f"aUTHORIZATION: bEARER {model}\r\n"),
        "no scheme": ask("/application/x", f"Authorization: {model}\r\n"),
        "x-api-key": ask("/v1/files/upload", f"X-Api-Key: {model}\r\n"),
        "beside another": ask("/v1/files/upload", f"Authorization: Bearer {own}\r\nX-API-KEY: {model}\r\n"),
        "two in one": ask("/v1/messages", f"Authorization: Bearer {own},{model}\r\n"),
        "api-key": ask("/application/x", f"api-key: {model}\r\n"),
        "query": ask(f"/application/x?a=b&api_key={model}"),
        "cookie": ask("/application/x", f"Cookie: a=b; key={foreign}\r\n"),
        "foreign": ask("/application/x", f"Authorization: Bearer {foreign}\r\n"),
    }
    assert {name: (answer.status, answer.code) for name, answer in unknown_path.items()} == dict.fromkeys(unknown_path, (404, "unknown_url"))
    no_key = {
        "none": ask("/v1/messages"),
        "unknown": ask("/v1/messages", "Authorization: Bearer something-else-entirely\r\n"),
        "an application's, to models": ask("/v1/chat/completions", f"Authorization: Bearer {own}\r\n"),
        "an application's, in another case": ask("/v1/models", "authorization: BEARER app-somethingelse01234567\r\n", "GET"),
    }
    assert {name: (answer.status, answer.code) for name, answer in no_key.items()} == dict.fromkeys(no_key, (401, "invalid_api_key"))
    assert no_key["none"].headers["www-authenticate"].startswith("Bearer")
    # Of a header that comes twice, the second is refused or left away, never passed on unseen.
    for header in ("Authorization: Bearer", "X-Api-Key:"):
        twice = ask("/application/x", f"{header} harmless-0123456789\r\n{header} {model}\r\n")
        assert model.encode() not in twice.raw
    # Twins that pass: applications' keys, known or not, browsers' OPTIONS, and what is no key of ours.
    for passed in (
        ask("/v1/files/upload?user=sk-jones", f"Authorization: Bearer {own}\r\n"),
        ask("/v1/datasets", "Authorization: Bearer dataset-0123456789abcdef01234567\r\n"),
        ask("/v1/messages", "Origin: https://shop.example\r\n", "OPTIONS"),
        ask("/application/x", f"Authorization: Bearer sk-proj-{'A' * 90}\r\n"),
    ):
        assert passed.body.startswith((b"POST /", b"OPTIONS /")), passed.raw


INTERNAL = {
    "X-Dify-From": "dify1",
    "X-Sovereign-Tier": "vip",
    "CF-Connecting-IP": "10.9.9.9",
    "Dify-Hook-Url": "https://10.9.9.9/",
    "X-Forwarded-Prefix": "/10.9.9.9",
    "X-Original-URL": "/10.9.9.9",
    "X-Middleware-Subrequest": "middleware",
    "X-Data-Parallel-Rank": "7",
}


def test_headers_that_only_our_proxies_may_set_are_cleared(application: None) -> None:
    claims = "".join(f"{name}: {value}\r\n" for name, value in INTERNAL.items())
    seen = exchange("debian12", http(path="/application/x", headers=claims + "X-Own: kept\r\n")).body.decode().lower()
    assert "x-own: kept" in seen
    # Of a request to an application all else passes; the last one is the model server's.
    assert [name for name in list(INTERNAL)[:-1] if f"\n{name.lower()}:" in seen] == []
    assert "10.9.9.9" not in seen
    models = exchange("debian12", http(chat(), key=key_of("branch-desk"), headers=claims + "Traceparent: kept\r\n")).json()["stub"]["headers"]
    assert models["traceparent"] == "kept"
    assert models["x-sovereign-tier"] == "standard"
    assert models.keys() & {name.lower() for name in INTERNAL} == {"x-sovereign-tier"}


def test_requests_that_haproxy_would_refuse_in_html_do_not_reach_it(entry: str) -> None:
    key = key_of("core-banking")
    many = exchange(entry, http(chat(), key=key, headers="".join(f"X-{n}: {n}\r\n" for n in range(150))))
    assert many.status == 200
    assert len(many.json()["stub"]["headers"]) < 30
    for path in ("/v1/chat/completions#fragment", "/v1/models?a=#b", "/v1/\u00e4", "/#"):
        refused = exchange(entry, http(path=path, key=key))
        assert (refused.status, refused.code) == (400, "bad_request"), path
    # Twins: the same characters, encoded.
    assert exchange(entry, http(method="GET", path="/v1/models?a=%23%e4", key=key)).status == 200
    assert exchange(entry, http(path="/.error/429#", key=key)).status == 404


def test_the_port_that_a_client_asks_for_reaches_the_application(on: Any, application: None) -> None:
    for asked, host, port in ((f"{NAME}:10443", f"{NAME}:10443", "10443"), (NAME, NAME, "443"), (f"{NAME}:443", NAME, "443")):
        seen = exchange("debian12", http(path="/application/x", host=asked)).body.decode().lower().splitlines()
        assert {f"host: {host}", f"x-forwarded-host: {host}", f"x-forwarded-port: {port}"} <= set(seen)
    # In HTTP/2 it is :authority that says so.
    command = f"{TRUSTED} --http2 --connect-to {NAME}:10443:{ADDRESS['debian12']}:443 https://{NAME}:10443/application/x"
    seen = on("backend").check_output(command).lower().splitlines()
    assert {f"host: {NAME}:10443", "x-forwarded-port: 10443"} <= set(seen)
    # The name is the one that was checked, not what a second place says.
    absolute = f"GET https://{NAME}/application/x HTTP/1.1\r\nHost: elsewhere.example:10443\r\nConnection: close\r\n\r\n".encode()
    assert "elsewhere.example" not in exchange("debian12", absolute).body.decode()


def test_monitoring_reads_the_status_on_the_host_itself_and_nobody_else_does(on: Any, entry: str) -> None:
    assert "Active connections" in on(entry).check_output("curl --silent --fail --noproxy '*' http://127.0.0.1:8406/stub_status")
    assert exchange(entry, http(path="/stub_status", method="GET"), port=8406, tls=False, timeout=3).failure
    assert exchange(entry, http(path="/stub_status", method="GET")).status == 404


def test_a_reload_does_not_cut_a_stream(on: Any, entry: str) -> None:
    process = on(entry).check_output("systemctl show --property=MainPID nginx")
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(exchange, entry, http(chat(stream=True, max_tokens=40), key=key_of("core-banking")))
        sleep(1.5)
        on(entry).check_output("systemctl reload nginx")
        assert exchange(entry, http(chat(), key=key_of("core-banking"))).status == 200
        assert not stream.done()
    assert stream.result().raw.count(b"data: ") == 41
    assert on(entry).check_output("systemctl show --property=MainPID nginx") == process
