"""Each line arrives with its fields and without secrets, whatever wrote it, and nothing unmasked waits on disk."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.substrate.search_engine import PROGRAM as SEARCH_ENGINE
from lab.testing import PROJECT, changed, rerun

PKI = "/etc/sovereign/pki"
LINES = "/run/ledger/lines"
BOOKS = "/var/log/ledger/books.log"
ARRIVES_S = 10.0
Query = Callable[..., list[dict[str, Any]]]

# Nobody's: the area of the identity cards is none, and the cards are those of payment providers' tests.
SECRETS = [
    "999999199001011238",
    "99999919900101130X",
    "4111111111111111",
    "5555 5555 5555 4444",
    "13800138000",
    "+8613912345678",
    "zhang.san@bank.example.com",
    "sk-Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA",
    "hunter2hunter2",
    "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
]
TWINS = [
    "999999199001011239",
    "4111111111111112",
    "20261130193000123456",
    "1764529558123456",
    "vllm@faq.service",
    "12345678901",
    "prompt_tokens=4711",
]


@pytest.fixture(scope="session")
def query(on: Any) -> Query:
    """Ask the store, through its gate, for lines."""

    def ask(text: str) -> list[dict[str, Any]]:
        shown = f"--cacert {PKI}/ca.crt --cert {PKI}/host.pem"
        done = on("store").run(f"curl --silent --max-time 30 {shown} https://198.18.65.11:9449/select/logsql/query --data-urlencode 'query={text}'")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    return ask


def until(what: str, probe: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not in {seconds:.0f} s")


def write(on: Any, *lines: str, to: str = LINES) -> None:
    text = "".join(f"{line}\n" for line in lines)
    on("host").run(f"cat >> {to} <<'END'\n{text}END")


def journal_line(mark: str) -> str:
    said = {"severity": "warn", "request_id": mark, "caller": {"name": "web-chat"}, "status": 502, "seconds": 1.25, "text": "a line"}
    return json.dumps(said)


def test_a_line_of_json_arrives_in_time_with_all_its_fields(on: Any, query: Query) -> None:
    mark = f"{time.time_ns():x}"
    write(on, journal_line(mark))
    [found] = until("the line", lambda: query(f"request_id:={mark}"), ARRIVES_S)
    written = {key: found[key] for key in ("site", "host", "service", "level", "client", "status", "seconds", "unit", "shipped_by")}
    assert written == {
        "site": "hq", "host": "host", "service": "ledger", "level": "warning", "client": "web-chat", "status": "502", "seconds": "1.25",
        "unit": "ledger.service", "shipped_by": "host.shipper.test",
    }  # fmt: skip
    assert json.loads(found["_msg"])["text"] == "a line"
    assert abs(datetime.fromisoformat(found["_time"]).timestamp() - time.time()) < ARRIVES_S + 5


def test_a_line_that_is_no_json_is_read_by_its_pattern(on: Any, query: Query) -> None:
    mark = f"{time.time_ns():x}"
    write(on, f"ERROR [{mark}] 0.25s the books do not match")
    [found] = until("the line", lambda: query(f"request_id:={mark}"), ARRIVES_S)
    assert (found["level"], found["seconds"], found["_msg"]) == ("error", "0.25", f"ERROR [{mark}] 0.25s the books do not match")


def test_a_file_of_a_role_that_only_this_test_knows_arrives(on: Any, query: Query) -> None:
    mark = f"{time.time_ns():x}"
    now = datetime.now(UTC).isoformat()
    write(on, f"{now} WARN book {mark} is closed", to=BOOKS)
    [found] = until("the line", lambda: query(f"service:=books {mark}"), ARRIVES_S)
    assert (found["level"], found["host"]) == ("warning", "host")
    assert datetime.fromisoformat(found["_time"]) == datetime.fromisoformat(now)


def test_what_nobody_declares_arrives_too(on: Any, query: Query) -> None:
    mark = f"{time.time_ns():x}"
    on("store").run(f"logger --tag nobody --priority user.crit 'nobody declares {mark}'")
    [found] = until("the line", lambda: query(f"service:=nobody {mark}"), ARRIVES_S)
    assert (found["host"], found["level"]) == ("store", "critical")
    on("host").run(f"logger --tag sshd 'Failed password for root from 198.18.65.99 port 4711 ssh2 {mark}'")
    [found] = until("the line", lambda: query(f"service:=sshd {mark}"), ARRIVES_S)
    assert (found["client"], found["outcome"]) == ("198.18.65.99", "Failed")


def planted(mark: str) -> tuple[list[str], list[str]]:
    """Lines with secrets and with their twins, for the journal and for the file."""
    key, password, basic = SECRETS[-3:]
    odd = [
        json.dumps({"request_id": mark, "text": f"identity {SECRETS[0]}\nmobile {SECRETS[4]}", "card": int(SECRETS[2]), "mail": SECRETS[6]}),
        json.dumps(
            {"request_id": mark, "headers": {"authorization": f"Bearer {key}", "x-api-key": password}, "名": f"证件{SECRETS[1]}，电话{SECRETS[4]}"}
        ),
        f"request {mark} with Authorization: Basic {basic} and ?api_key={key}&password={password}",
        f'not {{"json": {mark} {SECRETS[3]} {SECRETS[5]} {SECRETS[1]}',
    ]
    plain = [f"{datetime.now(UTC).isoformat()} INFO {mark} {secret}" for secret in SECRETS[:7]]
    return [*odd, f"{mark} " + " ".join(TWINS)], plain


def test_secrets_and_personal_data_are_masked_and_their_twins_stay(on: Any, query: Query) -> None:
    mark = f"{time.time_ns():x}"
    odd, plain = planted(mark)
    write(on, *odd)
    write(on, *plain, to=BOOKS)
    found = until("the lines", lambda: len(lines := query(f"{mark}")) >= len(odd) + len(plain) and lines, ARRIVES_S + 10)
    text = json.dumps(found, ensure_ascii=False)
    assert [secret for secret in SECRETS if secret in text] == []
    assert [twin for twin in TWINS if twin not in text] == []
    assert not query(f'"{SECRETS[0]}" or "{SECRETS[2]}" or "{SECRETS[-3]}"')


def test_nothing_unmasked_waits_on_disk(on: Any) -> None:
    on("store").run("systemctl stop log_store_gate.service log_store.service")
    try:
        odd, _ = planted("waits")
        write(on, *(line for _ in range(10) for line in odd))
        time.sleep(5)
        on("host").run("systemctl restart log_shipper.service")
        held = on("host").run("cat /var/lib/sovereign/log_shipper/to_store.0*").stdout
        assert "request waits with" in held
        assert [secret for secret in SECRETS if secret in held] == []
    finally:
        on("store").run("systemctl start log_store.service log_store_gate.service")


# In front of the stand-in, as a firm's own would be: TLS with a certificate that the host knows, a user and a password.
SEARCH_PROXY = f"""
global
    log stdout format raw local0
userlist firm
    user shipper insecure-password its-password
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
frontend firm
    bind 198.18.65.12:9243 ssl crt {PKI}/host.pem
    http-request auth unless {{ http_auth(firm) }}
    default_backend engine
backend engine
    server engine 127.0.0.1:9200
"""
SEARCH = {"name": "firm", "url": "https://198.18.65.12:9243", "index": "platform-logs", "user": "shipper", "password": "its-password"}


@pytest.fixture
def found_there(on: Any) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Have the host ship to an Elasticsearch, too; give how to search it."""
    subprocess.run(["docker", "cp", str(SEARCH_ENGINE), "mol-log-shipper-host:/root/engine"], check=True, capture_output=True)
    host = on("host")
    host.run(f"cat > /root/firm.cfg <<'END'{SEARCH_PROXY}END")
    host.check_output("systemd-run --unit=firm-engine /root/engine -addr 127.0.0.1:9200 -no-stdin-watch")
    host.check_output("systemd-run --unit=firm-proxy haproxy -f /root/firm.cfg")

    def search(text: str) -> list[dict[str, Any]]:
        asked = json.dumps({"size": 10000, "query": {"match_phrase": {"message": text}}})
        url = "http://127.0.0.1:9200/platform-logs/_search"
        said = host.run(f"curl --silent --max-time 10 {url} --header 'Content-Type: application/json' --data '{asked}'").stdout
        return [hit["_source"] for hit in json.loads(said or "{}").get("hits", {}).get("hits", [])]

    own = {"name": "store", "url": "https://198.18.65.11:9449/insert/elasticsearch"}
    done = rerun("--limit=host", "--tags=log_shipper", log_shipper_targets=[own, SEARCH])
    assert done.returncode == 0, done.stdout
    yield search
    done = rerun("--limit=host", "--tags=log_shipper")
    assert done.returncode == 0, done.stdout
    host.run("systemctl stop firm-proxy firm-engine")


def test_an_elasticsearch_of_yours_gets_the_same_lines(on: Any, query: Query, found_there: Callable[[str], list[dict[str, Any]]]) -> None:
    mark = f"{time.time_ns():x}"
    lines = [f"{datetime.now(UTC).isoformat()} INFO {mark} {SECRETS[4]}: {place}" for place in range(1000)]
    write(on, *lines[:500], to=BOOKS)
    until("the first lines", lambda: len(found_there(mark)) == 500, ARRIVES_S)
    # It is away while more is written.
    on("host").run("systemctl stop firm-proxy")
    write(on, *lines[500:], to=BOOKS)
    until("all lines at the store", lambda: len(query(mark)) == 1000, ARRIVES_S + 10)
    assert len(found_there(mark)) == 500
    on("host").check_output("systemd-run --unit=firm-proxy haproxy -f /root/firm.cfg")
    until("all lines", lambda: len(found_there(mark)) >= 1000, 60)
    found = found_there(mark)
    assert sorted(int(line["message"].rpartition(": ")[2]) for line in found) == list(range(1000))
    assert {(line["site"], line["host"], line["service"], line["level"]) for line in found} == {("hq", "host", "books", "info")}
    assert SECRETS[4] not in json.dumps(found)


def test_the_journal_is_not_written_once_more(on: Any) -> None:
    for host in ("store", "host"):
        assert not on(host).file("/var/log/syslog").exists
        assert on(host).run("systemctl is-active rsyslog.service").stdout.strip() == "inactive"


def test_what_the_shipper_says_of_a_dead_store_is_not_shipped(query: Query) -> None:
    assert not query("_time:1h unit:in(log_shipper.service, log_store.service, log_store_gate.service)")


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"log_shipper_queue_size": "4 GB"}, "is no size such as 4g"),
        ({"log_shipper_own_masks": {"x": "("}}, "no regular expression"),
        ({"log_shipper_targets": []}, "nowhere to ship to"),
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, Any], told: str) -> None:
    done = rerun("--limit=host", "--tags=log_shipper", **knobs)
    assert done.returncode != 0
    assert told in " ".join(done.stdout.split())


def test_a_rerun_changes_nothing() -> None:
    done = rerun()
    assert set(changed(done).values()) == {0}, done.stdout


def test_the_program_that_prints_metrics_knows_this_host(on: Any) -> None:
    program = (PROJECT / "roles/log_shipper/monitoring/log_shipper_metrics.py").read_text()
    on("host").run(f"cat > /root/metrics.py <<'END'\n{program}\nEND")
    said = on("host").check_output("python3 -IB /root/metrics.py /var/lib/sovereign/log_shipper 4294967296")
    assert re.search(r'^sovereign_log_queue_lines\{target="store"\} \d+$', said, re.MULTILINE)
    assert re.search(r'^sovereign_log_lost_lines_total\{target="store"\} 0$', said, re.MULTILINE)
