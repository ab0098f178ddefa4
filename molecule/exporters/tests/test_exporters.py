"""Whoever may ask is told all that a host offers, and nobody else anything."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.testing import changed, rerun, tls_faults

GATE = "198.18.54.12:9447"
PKI = "/etc/sovereign/pki"
Ask = Callable[..., str]


@pytest.fixture
def ask(on: Any) -> Ask:
    """Ask a gate, from a host and with its certificate or another one; give status and body."""

    def asked(path: str, host: str = "asker", gate: str = GATE, certificate: str = f"{PKI}/host.pem") -> str:
        shown = f"--cert {certificate} " if certificate else ""
        return str(
            on(host).run(f"curl --silent --max-time 5 --cacert {PKI}/ca.crt {shown}--write-out '\\n%{{http_code}}' https://{gate}{path}").stdout
        )

    return asked


def test_a_host_tells_what_there_is(ask: Ask) -> None:
    body, _, status = ask("/targets").rpartition("\n")
    assert status == "200"
    found = {entry["labels"]["job"]: entry for entry in json.loads(body)}
    assert set(found) == {"node", "etcd", "ledger"}
    labels = {"__metrics_path__": "/ledger", "job": "ledger", "role": "ledger", "instance": "one", "book": "main"}
    assert found["ledger"] == {"targets": [GATE], "labels": labels}
    counted = ask("/gate")
    assert 'sovereign_endpoints{role="ledger"} 1' in counted
    assert 'sovereign_endpoints{role="etcd"} 1' in counted


@pytest.mark.parametrize(
    ("gate", "path", "metric"),
    [(GATE, "/etcd", "etcd_server_has_leader 1"), (GATE, "/ledger", "ledger_entries_total 7"), (GATE, "/node", "node_load1 "),
     ("198.18.54.13:9447", "/node", "node_load1 ")],
)  # fmt: skip
def test_each_of_it_answers(ask: Ask, gate: str, path: str, metric: str) -> None:
    assert metric in ask(path, gate=gate)


def test_what_is_not_declared_is_not_there(ask: Ask) -> None:
    assert ask("/nothing").endswith("404")
    assert ask("/etcd/..%2f").endswith("404")


def test_a_host_that_may_not_ask_is_refused_at_each_wall(on: Any, ask: Ask) -> None:
    # The firewall, whatever it shows.
    assert ask("/targets", host="two").strip() == "000"
    # The gate: a certificate of the site's authority, but of another name. The host itself may, and Prometheus' host.
    for host in ("asker", "two"):
        pem = on(host).check_output(f"cat {PKI}/host.pem")
        on("one").run(f"umask 077; cat > /root/{host}.pem <<'END'\n{pem}\nEND")
    assert ask("/targets", host="one", certificate="/root/two.pem").endswith("403")
    assert ask("/targets", host="one", certificate="/root/asker.pem").endswith("200")
    assert ask("/targets", host="one").endswith("200")
    # Without a certificate there is no handshake.
    assert ask("/targets", certificate="").strip() == "000"


def test_tls_is_the_platforms(on: Any) -> None:
    assert not tls_faults(on("asker"), GATE)


@pytest.mark.parametrize("host", ["one", "two"])
def test_nothing_but_the_gate_listens_to_others(on: Any, host: str) -> None:
    listens = on(host).check_output("ss -Hltnp")
    ours = [line.split()[3] for line in listens.splitlines() if re.search(r"exporter|haproxy|python3", line)]
    assert [address for address in ours if not address.startswith("127.0.0.1:")] == [f"{'198.18.54.12' if host == 'one' else '198.18.54.13'}:9447"]


def test_programs_print_metrics_and_none_holds_the_others_up(on: Any, ask: Ask) -> None:
    deadline = time.monotonic() + 120
    while "sovereign_textfiles_time_seconds" not in (metrics := ask("/node")) and time.monotonic() < deadline:
        time.sleep(1)
    assert 'ledger_books{name="seven"} 1' in metrics
    # What a program has printed before it failed says nothing.
    assert "ledger_half" not in metrics
    succeeded = dict(re.findall(r'sovereign_textfile_success\{textfile="(\w+)"\} (\d)', metrics))
    assert succeeded == {"ledger": "1", "ledger_slow": "0", "ledger_broken": "0"} | {name: "1" for name in succeeded if not name.startswith("ledger")}
    on("one").run("systemctl start sovereign_textfiles.service")
    assert on("one").run("pgrep -f '[s]leep 4711'").rc, "it is still there"


def test_a_knob_reaches_what_is_asked(ask: Ask) -> None:
    try:
        done = rerun("--limit=one", ledger_port=7071)
        assert done.returncode == 0, done.stdout
        assert "ledger_entries_total 7" in ask("/ledger")
    finally:
        done = rerun("--limit=one")
        assert done.returncode == 0, done.stdout
    assert "ledger_entries_total 7" in ask("/ledger")


def test_a_dead_exporter_comes_back_and_a_rerun_changes_nothing(on: Any, ask: Ask) -> None:
    on("one").run("systemctl kill --signal=KILL prometheus-node-exporter.service exporters.service")
    deadline = time.monotonic() + 30
    while "node_load1" not in ask("/node") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert "node_load1" in ask("/node")
    done = rerun()
    assert set(changed(done).values()) == {0}, done.stdout
