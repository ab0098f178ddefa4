"""Where the time of slow requests went: each hop is named, by lines as the hops write them and the store gives them back; the playbook that asks."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.filter.slow_requests import slow_requests
from ansible_collections.sovereign.dify.plugins.filter.time_window import time_window
from ansible_collections.sovereign.dify.plugins.module_utils.slow_requests import HOPS, first_words, normalised
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.role_program import PROJECT
from tests.unit.test_log_lines import document

ID = "0af7651916cd43dd8448eb211c80319c"
AT = datetime(2026, 12, 1, 8, 0, tzinfo=UTC).timestamp()
"""When a request ended."""


def format_of(template: str, start: str) -> str:
    """The log format of a template, as it stands there."""
    text = (PROJECT / "roles" / template).read_text()
    return str(re.findall(rf"^ *{start} '(.*)';?$", text, re.MULTILINE)[0])


def stored(text: str, role: str, unit: str, at: float = AT) -> dict[str, str]:
    """What the store gives back of a line: texts, and nothing that is empty."""
    found = document(text, role, unit=unit, _SOURCE_REALTIME_TIMESTAMP=str(round(at * 1e6)))
    found = {"_time": found.pop("@timestamp"), "_msg": found.pop("message")} | found
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items() if value != ""}


def nginx(seconds: float, upstream: str = "", **given: Any) -> dict[str, str]:
    """A line of nginx of a request that took so long, and so long behind it."""
    said = {
        "msec": AT,
        "entry_request_id": ID,
        "remote_addr": "10.10.1.5",
        "entry_client": "core-banking",
        "entry_tier": "vip",
        "request_method": "POST",
        "entry_path": "/v1/chat/completions",
        "entry_status": 200,
        "request_length": 900,
        "bytes_sent": 5000,
        "request_time": seconds,
        "upstream_addr": "10.10.1.11:8443" if upstream else "",
        "upstream_connect_time": "0.004" if upstream else "",
        "upstream_response_time": upstream,
        "connection": 1,
        "connection_requests": 1,
    } | given
    text = format_of("nginx/templates/nginx.conf.j2", "log_format entry escape=json")
    return stored(re.sub(r"\$(\w+)", lambda found: str(said.get(found[1], "")), text), "nginx", "nginx.service")


def proxy(role: str, ms: dict[str, int], at: float = AT, **given: Any) -> dict[str, str]:
    """A line of an HAProxy: of the model gateway, or of dify_proxy."""
    timers = {"TR": ms.get("request", 0), "Tw": ms["queue"], "Tc": ms.get("connect", 1), "Tr": ms["first"], "Ta": ms["total"]}
    said: dict[str, Any] = timers | {"ST": 200, "U": 900, "B": 5000, "rc": 0, "ts": "--", "ac": 1, "f": "api", "b": "api", "s": "dify_api_1"}
    said |= {"txn.id": ID, "ci": "10.10.1.11", "txn.model": "assistant", "Ts": int(at), "ms": f"{int(at % 1 * 1000):03}"} | given
    text = format_of(f"{role}/templates/haproxy.cfg.j2", "log-format")
    text = re.sub(r"%\[var\(([a-z.]+)\)[^\]]*\]", lambda found: str(said.get(found[1], "")), text)
    text = re.sub(r"%([A-Za-z]+)", lambda found: str(said[found[1]]), text)
    return stored(text, role, {"model_gateway": "haproxy.service", "dify": "dify_proxy.service"}[role], at)


def gateway(queue: int, first: int, total: int, at: float | None = None, **given: Any) -> dict[str, str]:
    """A line of the model gateway, dated as there: when its request began."""
    return proxy("model_gateway", {"queue": queue, "first": first, "total": total}, AT - total / 1000 if at is None else at, **given)


def dify(queue: int, first: int, total: int, **given: Any) -> dict[str, str]:
    """A line of dify_proxy."""
    return proxy("dify", {"queue": queue, "first": first, "total": total}, **given)


def only(entry: dict[str, str], *hops: dict[str, str]) -> dict[str, Any]:
    """The one request of a report."""
    [found] = slow_requests({"entry": [entry], "hops": [entry, *hops]}, 10)["requests"]
    assert sum(found["hops"].values()) == pytest.approx(1000 * found["seconds"], abs=2) or found["notes"]
    assert len(found["bar"]) == 40
    return dict(found)


@pytest.mark.parametrize(
    ("slowest", "entry", "hops"),
    [
        # It sent its request at leisure; nginx asked when it was whole.
        ("client", nginx(9.0, "0.500"), [gateway(0, 200, 490)]),
        # A refusal: nobody but nginx and its client was there.
        ("client", nginx(30.0, entry_status=408), []),
        # The gateway took the request late.
        ("entry", nginx(5.0, "4.990", upstream_connect_time="4.000"), [gateway(0, 200, 490)]),
        ("gateway_queue", nginx(8.0, "7.990"), [gateway(7000, 400, 7980)]),
        # It waited for a place until its time was over: HAProxy met no server.
        ("gateway_queue", nginx(30.1, "30.050", entry_status=503), [gateway(30000, -1, 30001, Tc=-1, ST=503, ts="sQ")]),
        ("model_first_token", nginx(8.0, "7.990"), [gateway(10, 7000, 7980)]),
        # It never answered.
        ("model_first_token", nginx(60.0, "59.990", entry_status=504), [gateway(0, -1, 59985, ST=504, ts="sH")]),
        ("model_rest", nginx(20.0, "19.990"), [gateway(10, 300, 19980)]),
        ("dify_queue", nginx(9.0, "8.990"), [dify(8000, 500, 8980)]),
        ("dify_api", nginx(9.0, "8.990"), [dify(5, 8500, 8980)]),
        ("dify_rest", nginx(9.0, "8.990"), [dify(5, 500, 8980)]),
        # No later hop has a line of it.
        ("unknown", nginx(9.0, "8.990"), []),
    ],
)
def test_each_hop_is_named(slowest: str, entry: dict[str, str], hops: list[dict[str, str]]) -> None:
    found = only(entry, *hops)
    assert found["slowest"] == slowest, found
    assert found["bar"].count(HOPS[slowest][0]) > 20
    assert found["hops"][slowest] > 500 * found["seconds"]


def test_a_request_is_told_with_what_each_hop_took() -> None:
    found = only(nginx(10.0, "9.000"), gateway(2000, 3000, 8500))
    assert found["hops"] == {"client": 1000, "entry": 500, "gateway_queue": 2000, "model_first_token": 3001, "model_rest": 3499}
    assert found["bar"] == "CCCCEEGGGGGGGGFFFFFFFFFFFFMMMMMMMMMMMMMM"
    assert {name: found[name] for name in ("request_id", "client", "tier", "path", "model", "status", "seconds", "notes")} == {
        "request_id": ID,
        "client": "core-banking",
        "tier": "vip",
        "path": "/v1/chat/completions",
        "model": "assistant",
        "status": 200,
        "seconds": 10.0,
        "notes": [],
    }


def test_attempts_add_up() -> None:
    # nginx asked one gateway, whose queue was full, and then another.
    found = only(nginx(7.0, "5.000, 1.990", upstream_addr="10.10.1.11:8443, 10.10.1.12:8443"), gateway(4990, -1, 4990, Tc=-1), gateway(0, 900, 1980))
    assert found["hops"] == {"client": 10, "entry": 20, "gateway_queue": 4990, "model_first_token": 901, "model_rest": 1079}


def test_what_one_dify_proxy_hands_to_another_counts_once() -> None:
    outer, inner = dify(0, 8900, 8950, b="api_elsewhere"), dify(100, 8500, 8900)
    assert only(nginx(9.0, "8.960"), outer, inner)["hops"] == {"client": 40, "entry": 60, "dify_queue": 100, "dify_api": 8501, "dify_rest": 299}
    # Where the other's line is missing, the first one's says what it knows.
    assert only(nginx(9.0, "8.960"), outer)["hops"]["dify_api"] == 8901
    # Of a webhook, the plugin daemon's.
    webhook = dify(0, 8900, 8950, f="active_plugin_daemon", b="active_plugin_daemon")
    assert only(nginx(9.0, "8.960"), webhook, dify(0, 1000, 8900, f="plugin_daemon", b="plugin_daemon"))["hops"]["dify_rest"] == 7899


def test_a_model_that_is_asked_by_dify_under_the_same_id_counts_within_dify() -> None:
    found = only(nginx(9.0, "8.990"), dify(0, 8000, 8980), gateway(0, 500, 6000))
    assert found["hops"] == {
        "client": 10,
        "entry": 10,
        "gateway_queue": 0,
        "model_first_token": 501,
        "model_rest": 5499,
        "dify_queue": 0,
        "dify_api": 2001,
        "dify_rest": 979,
    }


def test_one_id_for_many_requests_is_told() -> None:
    former = nginx(5.0, "4.990", msec=AT - 600)
    latter = nginx(4.0, "3.990")
    lines = [former, latter, gateway(4000, 100, 4980, at=AT - 605), gateway(0, 3500, 3980)]
    found = slow_requests({"entry": [former, latter], "hops": lines}, 10)["requests"]
    assert [one["slowest"] for one in found] == ["gateway_queue", "model_first_token"]
    assert all(one["notes"] == ["2 requests have this id."] for one in found)
    # At the same time, nobody can tell whose line it is.
    both = [nginx(5.0, "4.990"), nginx(4.0, "3.990")]
    found = slow_requests({"entry": both, "hops": [*both, gateway(0, 3500, 3980)]}, 10)["requests"]
    assert [one["slowest"] for one in found] == ["unknown", "unknown"]
    assert "could belong to more than one" in found[0]["notes"][0]


def test_contradictions_are_told_and_break_nothing() -> None:
    # Clocks: the gateway tells more than nginx waited.
    found = only(nginx(2.0, "1.990"), gateway(0, 5000, 9000))
    assert (found["slowest"], found["hops"]["entry"]) == ("model_first_token", 0)
    assert "tell 7010 ms more than nginx waited" in found["notes"][0]
    found = only(nginx(2.0, "7.000"), gateway(0, 500, 6990))
    assert found["hops"]["client"] == 0
    assert "contradicts itself" in found["notes"][0]
    # Timers beyond their own total.
    assert only(nginx(2.0, "1.990"), gateway(9000, 9000, 1980))["hops"]["gateway_queue"] == 1980


@pytest.mark.parametrize("worth", ["", "x", "nan", "inf", "-5", "1e400", "0x10", "9" * 400, "1.2.3", "١٢"])
def test_what_is_no_number_is_told_and_never_taken_for_one(worth: str) -> None:
    entry = nginx(2.0, "1.990")
    found = only(entry | {"upstream_seconds": worth})
    assert (found["slowest"], found["hops"]) == ("unknown", {"unknown": 2000})
    assert "upstream_seconds" in found["notes"][0]
    if worth != "-5":
        for name in ("queue_milliseconds", "first_byte_milliseconds", "milliseconds"):
            found = only(entry, gateway(0, 500, 1980) | {name: worth})
            assert found["slowest"] == "unknown"
            assert found["notes"][0] == "1 line(s) of model_gateway tell no time that can be read."
    report = slow_requests({"entry": [entry | {"seconds": worth}]}, 10)
    assert report["requests"] == []
    assert report["notes"] == ["1 line(s) of nginx tell no time (seconds), and are left out."]
    assert slow_requests({"statuses": [{"status": "500", "lines": worth}]}, 10)["errors"] == []


def test_a_line_of_an_earlier_release_is_read() -> None:
    former = {name: value for name, value in gateway(0, 500, 1980).items() if name not in ("connect_milliseconds", "request_milliseconds")}
    assert only(nginx(2.0, "1.990"), former)["hops"]["model_first_token"] == 500


def test_nothing_gives_an_empty_report() -> None:
    assert slow_requests({}, 10) | {"legend": []} == {"requests": [], "statements": [], "errors": [], "legend": [], "notes": []}
    assert slow_requests({"entry": [], "hops": []}, 10)["requests"] == []
    assert slow_requests({"entry": [{}], "hops": [{}], "statements": [{}], "statuses": [{}], "ends": [{}], "messages": [{}]}, 10)["requests"] == []


@pytest.mark.parametrize(
    ("answers", "told"), [({"x": []}, "'x' is none of"), ({"hops": "text"}, "hops: give a list"), ({"hops": ["a"]}, "hops: give")]
)
def test_what_is_no_answer_is_refused(answers: Any, told: str) -> None:
    with pytest.raises(AnsibleFilterError, match=told):
        slow_requests(answers, 10)


def test_only_so_many_are_told_and_what_was_cut_is_said() -> None:
    lines = [nginx(1.0 + step, entry_request_id=f"request-{step}") for step in range(5)]
    report = slow_requests({"entry": lines}, 2, 5)
    assert [one["request_id"] for one in report["requests"]] == ["request-4", "request-3"]
    assert report["notes"] == ["entry: the store has more lines than the 5 that were read."]


def test_nothing_in_a_report_is_obeyed_by_a_terminal() -> None:
    report = slow_requests({"entry": [nginx(2.0) | {"path": "/\x1b[2J\n\u202e" + "a" * 500}]}, 10)
    path = report["requests"][0]["path"]
    assert path.isprintable()
    assert len(path) == 200


def postgresql(text: str, at: float = AT) -> dict[str, str]:
    return stored(text, "patroni", "patroni.service", at)


def test_statements_are_grouped_without_their_values() -> None:
    lines = [
        postgresql("11 dify@dify 10.10.3.51 LOG:  duration: 1200.500 ms  statement: SELECT * FROM apps WHERE id = 'a''b' AND n IN (1, 2, 3)"),
        postgresql("12 dify@dify 10.10.3.51 LOG:  duration: 1800.000 ms  statement: SELECT *  FROM apps WHERE id = 'c' AND n IN (4)", AT + 5),
        postgresql("13 postgres@postgres [local] LOG:  duration: 2001.100 ms  execute <unnamed>: SELECT pg_sleep($1)"),
        postgresql("13 postgres@postgres [local] LOG:  duration: 2001.100 ms  plan:"),
        postgresql("14 LOG:  checkpoint complete"),
    ]
    report = slow_requests({"statements": lines}, 10)
    former, latter = report["statements"]
    assert former == {
        "count": 2,
        "total_ms": 3000.5,
        "worst_ms": 1800.0,
        "worst_at": "2026-12-01T08:00:05.000000Z",
        "host": "gw1",
        "database": "dify",
        "user": "dify",
        "statement": "SELECT * FROM apps WHERE id = ? AND n IN (?)",
    }
    assert (latter["statement"], latter["user"], latter["worst_ms"]) == ("SELECT pg_sleep(?)", "postgres", 2001.1)
    assert report["notes"] == ["auto_explain logged 1 plan(s). They are lines of their own, after those: look at the host's, by the time."]


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("INSERT INTO t VALUES (1, 'a'), (2, 'b')", "INSERT INTO t VALUES (?)"),
        ("SELECT $tag$secret$tag$, $1, 1.5e3, col1", "SELECT ?, ?, ?, col1"),
        ("/* who */ SELECT 1 -- why\n, 2", "SELECT ? , ?"),
        ("UPDATE t SET a = 'cut off by", "UPDATE t SET a = ?"),
        ("'" * 7001, "?"),
        ("SELECT " + "a, " * 100, "SELECT " + "a, " * 64 + "…"),
    ],
)
def test_a_statement_loses_its_values(statement: str, left: str) -> None:
    assert normalised(statement) == left


def test_errors_are_counted_by_their_cause() -> None:
    times = {"earliest": "2026-12-01T07:00:00Z", "latest": "2026-12-01T08:00:00Z", "example": json.dumps([ID])}
    report = slow_requests(
        {
            "statuses": [{"status": "429", "limit": "REJECTED", "lines": "90"} | times, {"status": "0", "limit": "PASSED", "lines": "2"} | times],
            "ends": [
                {"service": "model_gateway", "status": "503", "end": "sQ", "lines": "40"} | times,
                {"service": "dify_proxy", "status": "-1", "end": "CD", "lines": "7"} | times,
                {"service": "dify_proxy", "status": "200", "end": "SD", "lines": "6"} | times | {"example": "no json"},
                {"service": "model_gateway", "status": "401", "end": "\x1b", "lines": "3"},
            ],
            "messages": [
                stored(
                    '{"ts":"2026-12-01T07:00:00Z","level":"ERROR","message":"Run 4711 failed: no model","req_id":"abcdef0123"}',
                    "dify",
                    "dify_api_1.service",
                ),
                stored('{"ts":"2026-12-01T07:10:00Z","level":"ERROR","message":"Run 4712 failed: no model"}', "dify", "dify_api_1.service"),
                postgresql('4711 dify@dify 10.10.3.51 FATAL:  password authentication failed for user "dify"'),
                stored("2026-12-01 08:00:00.1 ERROR [MainThread] [x.py:1] - queue is away", "dify", "dify_worker_1.service"),
            ],
        },
        20,
    )
    said = [(one["count"], one["service"], one["cause"], one["request_id"]) for one in report["errors"]]
    assert said == [
        (90, "nginx", "status 429, refused by the rate limit", ID),
        (40, "model_gateway", "status 503, the server was too slow in the queue (sQ)", ID),
        (7, "dify_proxy", "no answer, the client closed within the answer (CD)", ID),
        (6, "dify_proxy", "status 200, the server closed or refused within the answer (SD)", None),
        (3, "model_gateway", "status 401", None),
        (2, "dify", "Run N failed: no model", "abcdef0123"),
        (2, "nginx", "no answer: the client went away", ID),
        (1, "dify", "queue is away", None),
        (1, "postgresql", 'password authentication failed for user "dify"', None),
    ]
    assert (report["errors"][5]["first"], report["errors"][5]["last"]) == ("2026-12-01T07:00:00.000000Z", "2026-12-01T07:10:00.000000Z")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("2026/12/01 08:00:00 [error] 12#12: *3 connect() failed (111: Refused)", "N#N: *N connect() failed (N: Refused)"),
        ("ERROR 12-01 08:00:00 [core.py:1] engine died", "N-N N:N:N [core.py:N] engine died"),
        ('{"msg": 7, "event": "lost 550e8400-e29b-41d4-a716-446655440000"}', "lost N"),
        ('{"a":' * 5000, '{"a":' * 39 + '{"a"…'),
        ("", ""),
    ],
)
def test_first_words_are_without_what_changes(message: str, words: str) -> None:
    assert first_words(message) == words


NOW = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "until", "start", "end"),
    [
        ("1h", "", timedelta(hours=-1), timedelta()),
        ("2d", "30m", timedelta(days=-2), timedelta(minutes=-30)),
        ("2026-12-01T14:00:00+08:00", "2026-12-01T07:00:00.5Z", timedelta(hours=-2), timedelta(minutes=-60, seconds=0.5)),
        ("2026-12-01 06:00:00+00:00", "10s", timedelta(hours=-2), timedelta(seconds=-10)),
    ],
)
def test_times_are_read(since: str, until: str, start: timedelta, end: timedelta) -> None:
    found = time_window(since, until, NOW.timestamp())
    assert found["fault"] == ""
    said = [datetime.fromisoformat(found[name]) - NOW for name in ("began", "since", "until")]
    assert said == [start - timedelta(hours=2), start, end]


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [
        ("yesterday", "", "since (yesterday) is no time: write it as"),
        ("0h", "", "since (0h)"),
        ("1h", "2 h", "until (2 h) is no time"),
        ("1w", "", "since (1w)"),
        ("2026-12-01T07:00:00", "", "since (2026-12-01T07:00:00) is no time"),
        ("2026-13-01T07:00:00Z", "", "is no time"),
        ("999999d", "", "since (999999d) is no time"),
        ("30m", "1h", "since (30m) is not before until (1h)"),
        ("2026-12-02T07:00:00Z", "", "is not before until (now)"),
        ("1h] or *", "", "is no time"),
    ],
)
def test_times_that_are_none_are_refused(since: str, until: str, told: str) -> None:
    found = time_window(since, until, NOW.timestamp())
    assert (found["since"], found["until"], found["began"]) == ("", "", "")
    assert told in found["fault"]


class Store(ThreadingHTTPServer):
    """A store behind its gate: mutual TLS, and lines by what a question is about."""

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        """Listen."""
        super().__init__(("127.0.0.1", 0), Asked)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.load_verify_locations(certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.questions: list[str] = []
        self.lines: dict[str, list[dict[str, str]]] = {}


class Asked(BaseHTTPRequestHandler):
    """Answers one question."""

    def do_POST(self) -> None:
        """Give the lines of the first part that the question has."""
        assert isinstance(self.server, Store)
        question = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["query"][0]
        self.server.questions.append(question)
        found = next((lines for part, lines in self.server.lines.items() if part in question), [])
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in found).encode()
        self.send_response(200 if self.path == "/select/logsql/query" else 404)
        self.send_header("Content-Type", "application/stream+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: Any) -> None:
        """Stay silent."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hq-mon1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "host.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    with Store(path) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def play(tmp_path: Path, hosts: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook over hosts that are this one."""
    certificate = str(tmp_path / "host.pem")
    inventory = {
        "log_store": {
            "hosts": hosts,
            "vars": {
                "ansible_connection": "local",
                "ansible_become": False,
                "ansible_python_interpreter": sys.executable,
                "cluster": {
                    "state_dir": str(tmp_path),
                    "pki": {"ca": certificate, "cert": certificate, "key": certificate},
                    "ports": {"log_store": "{{ store_port }}"},
                },
                "site": {"name": "hq", "members": {"log_store": [{"name": name} for name in hosts]}},
            },
        }
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    command = ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), str(PROJECT / "playbooks/ops/slow_requests.yml"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def member(store: Store | None) -> dict[str, Any]:
    """A member of log_store, with its store, or one whose store is down."""
    return {"node": {"address": "127.0.0.1"}, "store_port": store.server_port if store else 1}


def test_the_playbook_asks_the_member_that_knows_most_and_tells_what_it_says(store: Store, tmp_path: Path) -> None:
    entry = nginx(8.0, "7.990")
    store.lines = {
        "count() requests": [{"requests": "3"}],
        "service:=nginx seconds:>0 -status:=101 | sort": [entry],
        "request_id:in(": [entry, gateway(7000, 400, 7980)],
        "service:=postgresql": [postgresql("13 p@p [local] LOG:  duration: 2001.100 ms  statement: SELECT pg_sleep(2), 'line\u2028end'")],
        "service:=nginx seconds:>=0": [
            {"status": "502", "limit": "PASSED", "lines": "4", "earliest": "a", "latest": "b", "example": json.dumps([ID])}
        ],
    }
    hosts = {"hq-mon0": member(None), "hq-mon1": member(store)}
    run = play(tmp_path, hosts, "-e", "since=2026-12-01T07:00:00+00:00", "-e", "until=2026-12-01T09:00:00Z", "-e", "top=3")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "changed=1" in run.stdout, "the directory of reports, and nothing else"
    [path] = (tmp_path / "reports").iterdir()
    assert path.name == "slow_requests-hq.json"
    report = json.loads(path.read_text())
    assert {name: report[name] for name in ("site", "member", "since", "until")} == {
        "site": "hq",
        "member": "hq-mon1",
        "since": "2026-12-01T07:00:00.000Z",
        "until": "2026-12-01T09:00:00.000Z",
    }
    assert [(one["request_id"], one["slowest"], one["seconds"]) for one in report["requests"]] == [(ID, "gateway_queue", 8.0)]
    assert [one["statement"] for one in report["statements"]] == ["SELECT pg_sleep(?), ?"]
    assert [(one["count"], one["cause"], one["request_id"]) for one in report["errors"]] == [(4, "status 502", ID)]
    for shown in ("gateway_queue", "G" * 30, "SELECT pg_sleep(?)", "status 502", "G  gateway_queue: the model gateway"):
        assert shown in run.stdout, run.stdout
    window = "_time:[2026-12-01T07:00:00.000Z, 2026-12-01T09:00:00.000Z]"
    slow = f"{window} service:=nginx seconds:>0 -status:=101"
    assert store.questions[:2] == [
        f"{slow} | stats count() requests",
        f"{slow} | sort by (seconds desc) limit 3 | fields _time, host, service, request_id, client, tier, method, path, status, seconds, upstream,"
        " upstream_connect_seconds, upstream_seconds",
    ]
    hops = "_time:[2026-12-01T05:00:00.000Z, 2026-12-01T09:00:00.000Z] service:in(nginx, model_gateway, dify_proxy)"
    assert store.questions[-1].startswith(f'{hops} request_id:in("{ID}") | limit 10000 | fields _time, host,')
    ends = f'{window} service:in(model_gateway, dify_proxy) milliseconds:>=0 (status:>=400 or status:<100 or end:~"^[CSPRIDUKcs]") | stats by'
    assert any(question.startswith(ends) for question in store.questions), store.questions


def test_the_playbook_shows_an_empty_store_in_check_mode_and_writes_nothing(store: Store, tmp_path: Path) -> None:
    run = play(tmp_path, {"hq-mon1": member(store)}, "--check", "--diff")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "changed=0" in run.stdout
    assert "log_min_duration_statement" in run.stdout
    assert not (tmp_path / "reports").exists()
    # Nothing was slow, so no later hop was asked for.
    assert not [question for question in store.questions if "request_id:in(" in question]


@pytest.mark.parametrize(
    ("hosts", "options", "told"),
    [
        ({}, (), "No host is in the group log_store"),
        ({"hq-mon1": member(None)}, ("-e", "since=yesterday"), "since (yesterday) is no time: write it as"),
        ({"hq-mon1": member(None)}, ("-e", "top=1001"), "top (1001) is how many requests, statements and causes are told"),
        (
            {"hq-mon1": member(None), "hq-mon2": member(None)},
            (),
            "hq: no member of log_store answers (hq-mon1, hq-mon2). hq-mon1: Status code was -1",
        ),
    ],
)
def test_the_playbook_refuses_what_cannot_be_asked(hosts: dict[str, Any], options: tuple[str, ...], told: str, tmp_path: Path, store: Store) -> None:
    run = play(tmp_path, hosts, *options)
    assert run.returncode != 0
    assert told in run.stdout + run.stderr, run.stdout + run.stderr
    assert store.questions == []
