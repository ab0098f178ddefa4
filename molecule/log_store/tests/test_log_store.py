"""Nothing is lost at either store, also of what was written while it was away; what they find is an alert; who may not add or ask is refused."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.testing import PROJECT, changed, docker, rerun, tls_faults

STORES = ("one", "two")
ADDRESSES = {"one": "198.18.64.11", "two": "198.18.64.12", "three": "198.18.64.13"}
PKI = "/etc/sovereign/pki"
BOOKS = "/var/log/ledger/books.log"
ARRIVES_S = 10.0
ALERTS_S = 90.0
"""Seconds until an alert: half a minute until the time that is asked for has passed, another until the evaluation, and the way of the lines."""
COUNT = 12000
AWAY_S = 60.0
GOOD = "_time:5m service:=books | stats by (host) count() as lines | filter lines:>1000000"
Query = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def query(on: Any) -> Query:
    """Ask a store, through its gate, for lines."""

    def ask(text: str, store: str = "one") -> list[dict[str, Any]]:
        url = f"https://{ADDRESSES[store]}:9449/select/logsql/query"
        shown = f"--cacert {PKI}/ca.crt --cert {PKI}/host.pem"
        done = on(store).run(f"curl --silent --max-time 30 {shown} {url} --data-urlencode 'query={text}'")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    return ask


def until(what: str, probe: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not in {seconds:.0f} s")


def numbered(query: Query, store: str, mark: str) -> Counter[int]:
    found = query(f"service:=books {mark}", store)
    return Counter(int(number[1]) for line in found if (number := re.search(rf"{mark} (\d+)$", line["_msg"])))


def test_nothing_is_lost_while_a_store_is_away_and_the_host_restarts(on: Any, query: Query) -> None:
    """One store goes, in the midst of lines; the host restarts; the other store's VictoriaLogs restarts behind its gate; rsyslog is killed."""
    mark = f"n{time.time_ns():x}"
    script = f'for i in $(seq "$1" "$2"); do echo "$(date -Is) INFO {mark} $i" >> {BOOKS}; [ $((i % 400)) -ne 0 ] || sleep 0.8; done'
    on("three").run(f"cat > /root/write.sh <<'END'\n{script}\nEND")

    def written(unit: str) -> bool:
        return str(on("three").run(f"systemctl is-active {unit}").stdout).strip() != "active"

    on("three").run(f"systemd-run --unit=write1 sh /root/write.sh 1 {COUNT // 2}")
    time.sleep(2)
    began = time.monotonic()
    on("one").run("systemctl kill --signal=KILL log_store_gate.service; systemctl stop log_store_gate.service log_store.service")
    until("the first half is written", lambda: written("write1"), 240)
    docker("restart", "mol-log-store-three")
    until("the host is back", lambda: on("three").run("systemctl is-active log_shipper").stdout.strip() == "active", 120)
    on("three").run(f"systemd-run --unit=write2 sh /root/write.sh {COUNT // 2 + 1} {COUNT}")
    on("two").run("systemctl restart log_store.service")
    time.sleep(max(5.0, AWAY_S - (time.monotonic() - began)))
    on("three").run("systemctl kill --signal=KILL log_shipper.service")
    on("one").run("systemctl start log_store.service log_store_gate.service")
    until("the second half is written", lambda: written("write2"), 240)
    lost, twice = {}, {}
    for store in STORES:
        deadline = time.monotonic() + 120
        while len(found := numbered(query, store, mark)) < COUNT and time.monotonic() < deadline:
            time.sleep(2)
        lost[store] = sorted(set(range(1, COUNT + 1)) - set(found))
        twice[store] = sum(count - 1 for count in found.values())
    print(f"of {COUNT} lines: lost { ({store: len(gone) for store, gone in lost.items()}) }, twice {twice}")
    assert lost == {"one": [], "two": []}


def gate(on: Any, host: str, path: str, store: str, data: str = "") -> str:
    """Ask a gate with a host's certificate; give the status."""
    body = f"--header 'Content-Type: application/json' --data-binary '{data}'" if data else ""
    shown = f"--cacert {PKI}/ca.crt --cert {PKI}/host.crt --key {PKI}/host.key"
    url = f"https://{ADDRESSES[store]}:9449{path}"
    return str(
        on(host).run(f"curl --silent --path-as-is --max-time 10 {shown} {body} --output /dev/null --write-out '%{{http_code}}' '{url}'").stdout
    ).strip()


LINE = '{"create":{}}\n{"@timestamp":"2026-01-01T00:00:00Z","message":"forged","host":"one","shipped_by":"one.logs.test"}\n'
BULK, ASK = "/insert/elasticsearch/_bulk", "/select/logsql/query?query=*&limit=1"


def test_who_may_not_ask_or_add_is_refused_beside_one_who_may(on: Any) -> None:
    assert gate(on, "one", ASK, "two") == "200"
    assert gate(on, "three", ASK, "two") == "403"
    assert gate(on, "three", BULK, "two", LINE) == "200"
    for path in ("/insert/jsonline", "/metrics", "/insert/../select/logsql/query?query=*", "/select/..%2fmetrics", "/", "/internal/select/query"):
        assert gate(on, "three", path, "two") == "403", path
        assert gate(on, "one", path, "two") == "403", path
    assert on("three").run(f"curl --silent --max-time 5 --cacert {PKI}/ca.crt 'https://{ADDRESSES['two']}:9449{ASK}'").rc, "without a certificate"
    assert on("three").run("curl --silent --max-time 5 http://198.18.64.12:9428/metrics").rc, "VictoriaLogs itself"


@pytest.fixture
def without_three() -> Iterator[None]:
    """Take a host from those who may add lines, at one store."""
    writers = [{"fqdn": f"{name}.logs.test", "address": ADDRESSES[name]} for name in STORES]
    done = rerun(
        "--limit=two", "--tags=log_store", log_store_writers=writers, log_store_readers=[*writers, {"fqdn": "x.test", "address": ADDRESSES["three"]}]
    )
    assert done.returncode == 0, done.stdout
    yield
    done = rerun("--limit=two", "--tags=log_store")
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("without_three")
def test_a_host_that_may_no_longer_add_is_refused_by_its_name(on: Any) -> None:
    assert gate(on, "three", BULK, "two", LINE) in ("403", "000")
    assert gate(on, "one", BULK, "two", LINE) == "200"


def test_a_line_tells_whose_certificate_it_came_with(on: Any, query: Query) -> None:
    mark = f"forged{time.time_ns():x}"
    now = datetime.now(UTC).isoformat()
    line = f'{{"create":{{}}}}\n{{"@timestamp":"{now}","message":"{mark}","host":"one","site":"hq","service":"x","shipped_by":"one.logs.test"}}\n'
    assert gate(on, "three", BULK, "one", line) == "200"
    [found] = until("the line", lambda: query(mark), ARRIVES_S)
    assert found["shipped_by"] == "three.logs.test"


def alerts(on: Any, name: str) -> list[dict[str, Any]]:
    """Ask Alertmanager for the active alerts of a name."""
    shown = f"--cacert {PKI}/ca.crt --cert {PKI}/host.crt --key {PKI}/host.key"
    url = f"https://{ADDRESSES['one']}:9093/api/v2/alerts?filter=alertname=%22{name}%22"
    found = json.loads(on("one").check_output(f"curl --silent --fail --max-time 10 {shown} '{url}'"))
    return [one for one in found if one["status"]["state"] == "active"]


def rules(on: Any, store: str) -> dict[str, dict[str, Any]]:
    """Ask vmalert of a member for its rules, by their names."""
    said = json.loads(on(store).check_output("curl --silent --fail --max-time 10 http://127.0.0.1:8880/api/v1/rules"))
    return {rule["name"]: rule for group in said["data"]["groups"] for rule in group["rules"]}


def test_failed_logins_are_one_alert_though_two_stores_tell_of_them(on: Any) -> None:
    assert alerts(on, "HostLoginsFail") == []
    on("three").run('for i in $(seq 25); do logger -t sshd "Failed password for root from 198.18.64.9 port $((50000 + i)) ssh2"; done')
    said = "25 logins over SSH have failed on three in five minutes."
    # An evaluation in the midst of the lines has counted fewer.
    [found] = until("the alert", lambda: [one for one in alerts(on, "HostLoginsFail") if one["annotations"]["summary"] == said], ALERTS_S)
    assert found["labels"] == {
        "alertname": "HostLoginsFail",
        "severity": "warning",
        "role": "baseline",
        "host": "three",
        "instance": "three",
        "site": "hq",
        "cluster": "mol-log-store",
        # By vmalert: which of a query's figures it is.
        "stats_result": "failures",
    }
    until("both stores tell of it", lambda: {rules(on, store)["HostLoginsFail"]["state"] for store in STORES} == {"firing"}, ALERTS_S)
    assert len(alerts(on, "HostLoginsFail")) == 1


def test_an_alert_of_a_role_that_only_this_scenario_knows_ends_with_its_lines(on: Any) -> None:
    on("three").run(f'echo "$(date -Is) ERROR the clerk lost its book" >> {BOOKS}')
    [found] = until("the alert", lambda: alerts(on, "LedgerBookLost"), ALERTS_S)
    assert (found["labels"]["role"], found["labels"]["instance"]) == ("ledger", "three")
    assert found["annotations"]["summary"] == "The ledger of three has lost 1 books."
    until("the alert is over", lambda: not alerts(on, "LedgerBookLost"), 60 + ALERTS_S)


@pytest.mark.parametrize("store", STORES)
def test_every_rule_can_be_evaluated(on: Any, store: str) -> None:
    found = rules(on, store)
    assert {"HostLoginsFail", "LedgerBookLost"} <= set(found)
    assert {name: rule["lastError"] for name, rule in found.items() if rule["health"] != "ok"} == {}
    # What the alerts LogAlertsFailing and LogAlertsNotSent are made of.
    metrics = on(store).check_output("curl --silent --fail --max-time 10 http://127.0.0.1:8880/metrics")
    assert re.search(r'^vmalert_alerting_rules_errors_total\{[^}]*group="ledger_logs"[^}]*\} \d+$', metrics, re.MULTILINE)
    assert re.search(r"^vmalert_alerts_send_errors_total\{[^}]*\} \d+$", metrics, re.MULTILINE)


def test_a_store_is_let_in_by_its_name_and_another_host_is_not(on: Any) -> None:
    ask = f"curl --silent --max-time 5 --cacert {PKI}/ca.crt"
    url = f"https://{ADDRESSES['one']}:9093/api/v2/status"
    assert on("two").run(f"{ask} --cert {PKI}/host.pem --fail {url}").rc == 0
    assert on("three").run(f"{ask} --cert {PKI}/host.pem {url}").rc, "the firewall"
    pem = on("three").check_output(f"cat {PKI}/host.pem")
    on("two").run(f"umask 077; cat > /root/three.pem <<'END'\n{pem}\nEND")
    assert on("two").run(f"{ask} --cert /root/three.pem {url}").rc, "a certificate of another name"


@pytest.mark.parametrize(
    ("expr", "told"),
    [
        ("_time:5m service:=books | stats by (host count() as n", "stats"),
        ("_time:5m service:=books", "stats"),
    ],
)
def test_a_broken_rule_is_refused_and_changes_nothing(on: Any, tmp_path: Path, expr: str, told: str) -> None:
    look = "sha256sum /etc/sovereign/log_store/rules/* /etc/systemd/system/log_alerts.service; systemctl show --property=InvocationID log_alerts"
    before = on("one").check_output(look)
    file = tmp_path / "broken.yml"
    file.write_text(json.dumps({"groups": [{"name": "broken", "type": "vlogs", "rules": [{"alert": "Broken", "expr": expr}]}]}))
    # One file that would be taken, before the one that is not, shows that it is put back.
    good = tmp_path / "a_good.yml"
    good.write_text(json.dumps({"groups": [{"name": "good", "type": "vlogs", "rules": [{"alert": "Good", "expr": GOOD}]}]}))
    done = rerun("--limit=one", "--tags=log_store", log_store_alert_extra_rules=[str(good), str(file)])
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "extra_broken" in said
    assert told in said
    assert on("one").check_output(look) == before


@pytest.mark.parametrize("store", STORES)
def test_tls_is_the_platforms(on: Any, store: str) -> None:
    assert not tls_faults(on(store), f"{ADDRESSES[store]}:9449")


@pytest.mark.parametrize(
    ("limit", "knobs", "told"),
    [
        ("one", {"log_store_retention_days": 90}, "is less than 180"),
        ("one", {"log_store_max_size": "lots"}, "must be sizes such as"),
        ("one", {"log_store_archive_sha256": "0" * 64}, "and not the declared one"),
        ("one", {"log_store_alert_archive_sha256": "0" * 64}, "(log_store_alert_archive_sha256). Bring the right file"),
    ],
)
def test_bad_knobs_are_refused(limit: str, knobs: dict[str, Any], told: str) -> None:
    done = rerun(f"--limit={limit}", "--tags=log_store,log_shipper", **knobs)
    assert done.returncode != 0
    assert told in " ".join(done.stdout.split())


def test_a_rerun_changes_nothing() -> None:
    done = rerun()
    assert set(changed(done).values()) == {0}, done.stdout


def test_the_program_that_prints_metrics_knows_this_host(on: Any) -> None:
    program = (PROJECT / "roles/log_store/monitoring/log_store_metrics.py").read_text()
    on("one").run(f"cat > /root/metrics.py <<'END'\n{program}\nEND")
    said = on("one").check_output("python3 -IB /root/metrics.py /var/lib/sovereign/log_store 190 1000000")
    assert "sovereign_log_store_retention_days 190" in said
    assert "sovereign_log_store_oldest_day_time_seconds " in said
