"""What the log shipper's program makes of lines: fields, levels, times, and masks, which keep what only looks like a secret."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.log_sources import MASKS, declared_logs

from tests.role_program import PROJECT, load

lines = load("log_shipper", "log_lines")
SEED = 4711


def sources(*roles: str) -> list[dict[str, Any]]:
    found = []
    for role in roles:
        text = (PROJECT / f"roles/{role}/monitoring/logs.yml").read_text()
        for one in declared_logs(role, yaml.safe_load(text)):
            found.append({key: list(value) if isinstance(value, tuple) else value for key, value in vars(one).items()})
    return found


def maker(*roles: str, masks: tuple[str, ...] = MASKS, **own: str) -> Any:
    return lines.Lines({"site": "hq", "host": "gw1", "masks": list(masks), "own_masks": own, "sources": sources(*roles)})


def document(text: str, *roles: str, unit: str = "", identifier: str = "", tag: str = "", **journal: str) -> dict[str, Any]:
    entry = {
        "msg": text,
        "syslogtag": tag,
        "timereported": "2026-11-30T19:05:58.123456+00:00",
        "$!": {"MESSAGE": text, "_SYSTEMD_UNIT": unit, "SYSLOG_IDENTIFIER": identifier, "PRIORITY": "6", **journal},
    }
    answer = json.loads(maker(*roles).answer(json.dumps(entry).encode()))
    assert answer["msg"] == ""
    assert re.fullmatch(r"[0-9a-f]{24}", answer["$!"]["id"])
    return dict(json.loads(answer["$!"]["doc"]))


def mask(text: str, masks: tuple[str, ...] = MASKS, **own: str) -> str:
    return str(lines.masker(list(masks), own)(text))


def identity_cards(count: int) -> Iterator[str]:
    """Numbers of identity cards whose check digit is right, of dates of this and the last century."""
    chance = random.Random(SEED)  # noqa: S311 - the same in each run
    for _ in range(count):
        area = chance.choice(["110101", "310115", "440305", "510104", "659001"])
        born = f"{chance.randrange(1930, 2026)}{chance.randrange(1, 13):02}{chance.randrange(1, 29):02}"
        first = f"{area}{born}{chance.randrange(1000):03}"
        yield first + next(last for last in "0123456789X" if lines.identity_card(first + last))


def payment_cards(count: int) -> Iterator[str]:
    """Numbers of cards whose check digit is right, of 13 to 19 digits."""
    chance = random.Random(SEED)  # noqa: S311
    for _ in range(count):
        first = chance.choice(["4", "51", "55", "2221", "2720", "34", "37", "62", "6011", "3528", "9558", "81"])
        body = first + "".join(chance.choice("0123456789") for _ in range(chance.randrange(12, 19) - len(first)))
        yield next(body + last for last in "0123456789" if lines.payment_card(body + last))


AROUND = ["{}", "id={}", "身份证{}，谢谢", '{{"n":"{}"}}', "({})", "number {}.", "a:{};b", "\\n{}\\n", "x {} y"]


@pytest.mark.parametrize("around", AROUND)
def test_identity_cards_are_masked_and_those_with_a_wrong_digit_stay(around: str) -> None:
    for number in identity_cards(200):
        text = around.format(number)
        assert mask(text, ("identity_cards",)) == around.format("[identity card masked]"), text
        assert number.lower() not in mask(around.format(number.lower()))
        wrong = number[:17] + next(digit for digit in "0123456789" if digit != number[17])
        assert mask(around.format(wrong), ("identity_cards",)) == around.format(wrong)


@pytest.mark.parametrize("around", AROUND)
def test_payment_cards_are_masked_and_those_with_a_wrong_digit_stay(around: str) -> None:
    for number in payment_cards(200):
        assert mask(around.format(number), ("payment_cards",)) == around.format("[payment card masked]"), number
        grouped = " ".join(re.findall(r"\d{1,4}", number))
        assert mask(around.format(grouped), ("payment_cards",)) == around.format("[payment card masked]"), grouped
        assert mask(around.format(grouped.replace(" ", "-")), ("payment_cards",)) == around.format("[payment card masked]")
        wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
        assert mask(around.format(wrong), ("payment_cards",)) == around.format(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "1764529558",
        "1764529558123",
        "1764529558123456",
        "1764529558123456789",
        "20261130190558123456",
        "2026-11-30T19:05:58.123456Z",
        "0af7651916cd43dd8448eb211c80319c",
        "550e8400-e29b-41d4-a716-446655440000",
        "order 12345678901",
        "order 100000000000000000",
        "198.18.1.11:9449",
        "0.13800138000",
        "v1.13800138000.2",
        "vllm@faq.service failed",
        "dify_lease@beat.service",
        "user@198.18.1.11",
        "dify@dify",
        "prompt_tokens=4711",
        '"max_tokens":4096',
        "tokens: 123456789",
        "basic checks passed",
        "the bearer of news",
        "Basic authentication failed",
        "app-server-1.internal",
        "https://198.18.1.11:9449/x",
        "git@host:path",
        "risk-sk-1",
        "sha256:4111111111111111a4111111111111111",
        "PID 13800138",
        "secretary: Mrs",
        "pages 4111 to 4222",
        "a4111111111111111",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def-ghi_123", "Authorization: Bearer [key masked]"),
        ("authorization=Basic dXNlcjpwYXNz next", "authorization=Basic [key masked] next"),
        ('{"Authorization": "Bearer abcdefgh12345"}', '{"Authorization": "Bearer [key masked]"}'),
        (r"{\"authorization\":\"Bearer abcdefgh12345\"}", r"{\"authorization\":\"Bearer [key masked]\"}"),
        ("sent bearer abcdefgh12345,", "sent bearer [key masked],"),
        ("GET /v1?api_key=abcd1234&x=1", "GET /v1?api_key=[key masked]&x=1"),
        ("X-Api-Key: abcd1234", "X-Api-Key: [key masked]"),
        ("DB_PASSWORD=hunter22 go", "DB_PASSWORD=[key masked] go"),
        ("token='abcd1234'", "token='[key masked]'"),
        ("key sk-proj-abcdefghijklmnop used", "key [key masked] used"),
        ("app-0123456789abcdefghijABCD", "[key masked]"),
        ("postgresql://dify:hunter22@db1:5432/dify", "postgresql://dify:[key masked]@db1:5432/dify"),
        ("redis://:hunter22@db1:6379", "redis://:[key masked]@db1:6379"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nx", "[key masked]\nx"),
        ("call 13800138000 now", "call [mobile masked] now"),
        ("call +8613800138000, +86 138-0013-8000", "call [mobile masked], [mobile masked]"),
        ("tel:8613800138000", "tel:[mobile masked]"),
        ("手机13800138000。", "手机[mobile masked]。"),
        ("from Zhang.San+x@mail.bank.com.cn to", "from [email masked] to"),
        ("<a_b@x.cn>", "<[email masked]>"),
    ],
)
def test_keys_mobiles_and_addresses_are_masked(text: str, left: str) -> None:
    assert mask(text) == left


def test_each_mask_can_be_left_out_and_own_ones_added() -> None:
    text = "a@b.cn 13800138000 4111111111111111 110101199003070054 sk-abcdefghijklmnop KD-12345678"
    assert mask(text, ()) == text
    assert mask(text, ("emails",)).startswith("[email masked] 13800138000")
    assert mask(text, (), customer=r"KD-\d{8}").endswith(" [customer masked]")
    assert mask("customer=47 x", (), customer=r"customer=(\d+)") == "customer=[customer masked] x"


NGINX = (
    '{"time":1796066958.123,"request_id":"0af7651916cd43dd8448eb211c80319c","address":"10.10.1.5","client":"core-banking","tier":"vip","method":"POST",'
    '"host":"ai.bank.example","path":"/v1/chat/completions","protocol":"HTTP/1.1","tls":"TLSv1.3","status":502,"limit":"PASSED","bytes_in":1200,'
    '"bytes_out":5000,"seconds":1.234,"completed":"OK","upstream":"10.10.1.11:8443","upstream_status":"502"}'
)


@pytest.mark.parametrize(
    ("text", "role", "unit", "fields"),
    [
        (
            NGINX,
            "nginx",
            "nginx.service",
            {
                "service": "nginx",
                "request_id": "0af7651916cd43dd8448eb211c80319c",
                "client": "core-banking",
                "status": 502,
                "seconds": 1.234,
                "@timestamp": "2026-11-30T19:29:18.123000Z",
                "level": "info",
            },
        ),
        (
            "2026/11/30 19:05:58 [error] 12#12: *3 connect() failed, client: 10.10.1.5, server: x",
            "nginx",
            "nginx_errors.service",
            {"level": "error", "address": "10.10.1.5"},
        ),
        (
            '{"time":1796066958.7,"request_id":"A1","site":"edge","client":"web-chat","model":"faq","status":200,"total_ms":12}',
            "model_gateway",
            "haproxy.service",
            {"request_id": "A1", "peer_site": "edge", "site": "hq", "status": 200, "milliseconds": 12, "model": "faq"},
        ),
        ("[WARNING]  (12) : Server faq/gpu1 is DOWN", "model_gateway", "haproxy.service", {"level": "warning"}),
        (
            "127.0.0.1:4711 [30/Nov/2026:19:05:58.123] postgresql postgresql/db1 1/0/5 300 -- 1/1/0/0/0 0/0",
            "service_proxy",
            "service_proxy.service",
            {"backend": "postgresql", "server": "db1"},
        ),
        (
            '{"request_id":"0af7651916cd43dd8448eb211c80319c","frontend":"api","address":"10.10.1.11","method":"POST","path":"/v1/chat-messages",'
            '"backend":"api","server":"dify_api_1","status":503,"bytes_in":900,"bytes_out":512,"request_ms":0,"queue_ms":10001,"connect_ms":-1,'
            '"first_byte_ms":-1,"total_ms":10001,"retries":"0","end":"sQ"}',
            "dify",
            "dify_proxy.service",
            {
                "service": "dify_proxy",
                "request_id": "0af7651916cd43dd8448eb211c80319c",
                "frontend": "api",
                "server": "dify_api_1",
                "status": 503,
                "bytes_out": 512,
                "milliseconds": 10001,
                "queue_milliseconds": 10001,
                "first_byte_milliseconds": -1,
                "end": "sQ",
                "@timestamp": "2026-11-30T19:05:58.123456Z",
            },
        ),
        ("[WARNING]  (12) : Server api/dify_api_1 is DOWN", "dify", "dify_proxy.service", {"level": "warning", "service": "dify_proxy"}),
        (
            '{"ts":"2026-11-30T19:05:58.000Z","level":"ERROR","message":"m","req_id":"abc"}',
            "dify",
            "dify_api.service",
            {"level": "error", "request_id": "abc"},
        ),
        ("2026-11-30 19:05:58.123 WARNING [MainThread] [x.py:1] - slow", "dify", "dify_worker.service", {"level": "warning", "service": "dify"}),
        (
            "4711 dify@dify 10.10.3.51 LOG:  duration: 1234.567 ms  statement: x",
            "patroni",
            "patroni.service",
            {"pid": 4711, "user": "dify", "database": "dify", "client": "10.10.3.51", "milliseconds": 1234.567, "level": "info"},
        ),
        ("4712 FATAL:  the database system is starting up", "patroni", "patroni.service", {"pid": 4712, "level": "critical"}),
        ("ERROR: failed to reach etcd", "patroni", "patroni.service", {"level": "error"}),
        (
            "2026-11-30 19:05:58.123 UTC [12] LOG C-0x55d0: dify/dify@10.10.3.51:4711 login attempt",
            "pgbouncer",
            "pgbouncer.service",
            {"level": "info", "database": "dify", "user": "dify", "client": "10.10.3.51"},
        ),
        (
            "Connect from 10.10.2.11:5100 to 10.10.2.12:6280 (s3/HTTP)",
            "object_storage",
            "object_storage_mesh.service",
            {"level": "info", "address": "10.10.2.11", "frontend": "s3"},
        ),
        ("account-replicator: x", "object_storage", "swift-account-replicator.service", {"service": "object_storage"}),
        ("2801 health_check WARNING:  x", "pgpool", "pgpool2.service", {"level": "warning", "pid": 2801, "process": "health_check"}),
        ("P00   WARN: [001]: unable to open", "pgbackrest", "pgbackrest-backup@main.service", {"level": "warning", "code": "001"}),
        ("ts=x level=error err=y", "exporters", "prometheus-redis-exporter.service", {"service": "exporters", "level": "error"}),
        ("812:M 30 Nov 2026 19:05:58.123 # Connection lost", "redis", "redis-server.service", {"pid": 812, "part": "M"}),
        (
            "2026-11-30 19:05:58.123456+00:00 [warning] <0.613.0> closing",
            "rabbitmq",
            "rabbitmq-server.service",
            {"level": "warning", "process": "<0.613.0>"},
        ),
        (
            '{"level":"warn","ts":"2026-11-30T19:05:58.123456Z","caller":"etcdserver/x.go:1","msg":"slow","took":"1s"}',
            "etcd",
            "etcd.service",
            {"level": "warning", "caller": "etcdserver/x.go:1", "@timestamp": "2026-11-30T19:05:58.123456Z"},
        ),
        (
            "(APIServer pid=12) ERROR 11-30 19:05:58 [core.py:1] engine died",
            "vllm",
            "vllm@faq.service",
            {"level": "error", "unit": "vllm@faq.service"},
        ),
        ('INFO:     10.10.1.11:5100 - "POST /v1/chat/completions HTTP/1.1" 200 OK', "vllm", "vllm@faq.service", {"status": 200, "method": "POST"}),
        ("(entry) Entering MASTER STATE", "keepalived", "keepalived.service", {"instance": "entry", "state": "MASTER"}),
        ('ts=2026-11-30 level=warn component="rule manager" msg=x', "prometheus", "prometheus.service", {"level": "warning", "component": "rule"}),
    ],
)
def test_lines_of_the_services_are_read(text: str, role: str, unit: str, fields: dict[str, Any]) -> None:
    found = document(text, role, unit=unit)
    assert {key: found.get(key) for key in fields} == fields
    assert (found["site"], found["host"]) == ("hq", "gw1")
    assert found["message"] == text


@pytest.mark.parametrize(
    ("text", "identifier", "fields"),
    [
        ("Failed password for root from 10.1.2.3 port 4711 ssh2", "sshd", {"service": "sshd", "outcome": "Failed", "client": "10.1.2.3"}),
        ("Accepted publickey for root from 2001:db8::1 port 4711 ssh2", "sshd-session", {"outcome": "Accepted", "client": "2001:db8::1"}),
        ("   ops : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls", "sudo", {"service": "sudo", "user": "ops", "as_user": "root"}),
        ("Invoked with x", "ansible-ansible.builtin.copy", {"service": "ansible"}),
        ("AVC apparmor=DENIED", "audit", {"service": "audit", "record": "AVC"}),
        ("of nobody", "cron", {"service": "cron"}),
    ],
)
def test_lines_of_the_system_are_read(text: str, identifier: str, fields: dict[str, Any]) -> None:
    found = document(text, "baseline", identifier=identifier, unit="x.service")
    assert {key: found.get(key) for key in fields} == fields


def test_levels_and_times_are_the_journals_where_a_line_tells_none() -> None:
    found = document("x", identifier="cron", PRIORITY="3", _SOURCE_REALTIME_TIMESTAMP="1796066958000001")
    assert (found["level"], found["@timestamp"]) == ("error", "2026-11-30T19:29:18.000001Z")
    assert document("x", PRIORITY="")["@timestamp"] == "2026-11-30T19:05:58.123456Z"
    # A year that cannot be is not believed.
    assert document(NGINX.replace("1796066958.123", "17960669581"), "nginx", unit="nginx.service")["@timestamp"] == "2026-11-30T19:05:58.123456Z"


def test_lines_of_files_are_told_by_their_tag() -> None:
    found = document("type=USER_LOGIN msg=audit(1): x", "baseline", tag="file.audit:")
    assert (found["service"], found["type"]) == ("audit", "USER_LOGIN")


def test_json_is_masked_in_each_member_however_it_is_escaped() -> None:
    said = {
        "a": "\u4e2d13800138000",
        "b": [{"api_key": "x1"}, 4111111111111111, 1.5, None, True],
        "password": "p",
        "mail\n": "x\ta@b.cn",
        "tokens": 12,
    }
    for text in (json.dumps(said), json.dumps(said, ensure_ascii=False), json.dumps(said).replace("@", "\\u0040")):
        found = json.loads(document(text, "etcd", unit="etcd.service")["message"])
        assert found == {
            "a": "中[mobile masked]",
            "b": [{"api_key": "[key masked]"}, "[payment card masked]", 1.5, None, True],
            "password": "[key masked]",
            "mail\n": "x\t[email masked]",
            "tokens": 12,
        }


def test_fields_are_masked_as_well() -> None:
    found = document(NGINX.replace("core-banking", "zhang@bank.cn"), "nginx", unit="nginx.service")
    assert found["client"] == "[email masked]"


@pytest.mark.parametrize(
    "raw",
    [
        b"no json 13800138000\n",
        b'{"$!": 4711}\n',
        b'{"msg": "cut 4111111111111111',
        b"\xff\xfe 13800138000\n",
        b"\n",
        b'["a@b.cn"]\n',
        b'{"$!":{"PRIORITY":[]}}\n',
    ],
)
def test_a_message_that_cannot_be_read_is_sent_masked(raw: bytes) -> None:
    answer = maker("nginx").answer(raw)
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    found = json.loads(json.loads(answer)["$!"]["doc"])
    assert found["host"] == "gw1"
    assert not re.search("13800138000|4111111111111111|a@b.cn", found["message"])


def test_nonsense_gets_an_answer_too() -> None:
    chance = random.Random(SEED)  # noqa: S311
    one = maker("nginx", "baseline", "etcd")
    for _ in range(300):
        answer = json.loads(one.answer(chance.randbytes(chance.randrange(200)).replace(b"\n", b" ") + b"\n"))
        assert json.loads(answer["$!"]["doc"])["site"] == "hq"
    deep = '{"a":' * 5000
    assert document(deep, "etcd", unit="etcd.service")["message"].startswith('{"a":')


def test_a_message_that_is_too_long_is_cut_and_says_so() -> None:
    found = document("x" * 100_000)
    assert (len(found["message"]), found["cut"]) == (65536, 100_000)


def test_a_hostile_line_takes_no_longer_than_others() -> None:
    for text in (
        "a" * 60000 + "@",
        "a." * 30000,
        "1 " * 30000,
        "4" * 60000,
        "token=" * 10000,
        "://" * 20000,
        "x@" + "a." * 30000,
        "-----BEGIN PRIVATE KEY-----" * 2000,
    ):
        began = time.process_time()
        mask(text)
        assert time.process_time() - began < 2, text[:20]


def test_the_program_knows_the_masks_that_the_role_offers() -> None:
    assert lines.BUILT_IN == MASKS
    specification = yaml.safe_load((PROJECT / "roles/log_shipper/meta/argument_specs.yml").read_text())
    assert tuple(specification["argument_specs"]["main"]["options"]["log_shipper_masks"]["choices"]) == MASKS


def test_the_program_answers_line_by_line(tmp_path: Path) -> None:
    settings = tmp_path / "lines.json"
    settings.write_text(json.dumps({"site": "hq", "host": "gw1", "masks": list(MASKS), "own_masks": {}, "sources": []}))
    program = PROJECT / "roles/log_shipper/files/log_lines.py"
    command = [sys.executable, "-I", str(program), str(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for text in (b'{"msg":"one"}\n', b"nonsense\n", b'{"msg":"two"}\n'):
            process.stdin.write(text)
            process.stdin.flush()
            assert b'"doc"' in process.stdout.readline()
        process.stdin.close()
        assert process.wait(10) == 0
