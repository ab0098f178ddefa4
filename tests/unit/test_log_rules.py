"""Alerts that roles make of logs: their form, their pages, and the lines of which VictoriaLogs makes them and does not."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.log_sources import MASKS, LogSource, declared_logs

from lab.substrate import victorialogs
from tests.role_program import PROJECT, load

FILES = sorted(PROJECT.glob("roles/*/monitoring/log_rules.yml"))
OF_ALL_LINES = {"_time", "_msg", "site", "host", "service", "unit", "level"}
"""Fields that each line has, whatever is declared."""
STARTS_S = 30.0
RULE_KEYS = {"alert", "expr", "for", "labels", "annotations"}


def rules(path: Path) -> list[dict[str, Any]]:
    """Give the rules of a file of log rules."""
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def role_of(path: Path) -> str:
    """Give the role that a file belongs to."""
    return path.parts[-3]


def sources(role: str) -> list[LogSource]:
    """Give what a role declares of its logs."""
    return declared_logs(role, yaml.safe_load((PROJECT / f"roles/{role}/monitoring/logs.yml").read_text()))


def services(expr: str) -> set[str]:
    """Give the services whose lines an expression is about.

    They are named by the field. A filter of streams (``{service="sshd"}``) that is asked within a second of a stream's first line finds none, and
    goes on to find none, since VictoriaLogs remembers what it found.
    """
    found = re.match(r"_time:\d+m service:(?:=([a-z0-9_-]+)|in\(([a-z0-9_,-]+)\)) ", expr)
    assert found, f"does not begin with how far it looks back, and a service: {expr}"
    return set((found[1] or found[2]).split(","))


def without_texts(expr: str) -> str:
    """Give an expression without quoted texts."""
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', expr)


@pytest.mark.parametrize("path", FILES, ids=role_of)
def test_a_log_alert_says_what_and_where_to_read_on(path: Path) -> None:
    role = role_of(path)
    page = (PROJECT / f"docs/runbooks/{role}.md").read_text()
    for group in yaml.safe_load(path.read_text())["groups"]:
        assert set(group) == {"name", "type", "rules"}
        assert (group["name"], group["type"]) == (f"{role}_logs", "vlogs")
    for rule in rules(path):
        name = rule["alert"]
        assert set(rule) <= RULE_KEYS, name
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        # As the alerts that Prometheus makes have them.
        assert (rule["labels"]["role"], rule["labels"]["instance"]) == (role, "{{ $labels.host }}"), name
        summary = rule["annotations"]["summary"]
        assert summary.endswith("."), name
        assert "\n" not in summary, name
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{role}.md#{name.lower()}", name
        assert re.search(rf"^## {name}$", page, re.MULTILINE), f"docs/runbooks/{role}.md has no {name}"


def test_no_two_alerts_have_the_same_name() -> None:
    metrics = {rule["alert"] for path in PROJECT.glob("roles/*/monitoring/rules.yml") for rule in rules(path) if "alert" in rule}
    count = Counter(rule["alert"] for path in FILES for rule in rules(path))
    assert [name for name, times in count.items() if times > 1 or name in metrics] == []


@pytest.mark.parametrize("path", FILES, ids=role_of)
def test_a_log_alert_asks_for_services_and_fields_that_its_role_declares(path: Path) -> None:
    declared = {one.service: one for one in sources(role_of(path))}
    for rule in rules(path):
        expr, name = rule["expr"], rule["alert"]
        assert services(expr) <= set(declared), f"{name}: {services(expr) - set(declared)}"
        known = set(OF_ALL_LINES)
        for service in services(expr):
            known |= {*declared[service].fields, *re.findall(r"\(\?P<(\w+)>", declared[service].pattern)}
        grouped = re.search(r"\| stats by \(([^)]*)\) count\(\) as (\w+) \| filter (\w+):>\d+$", expr)
        assert grouped, f"{name} does not end with a count by fields and its limit"
        assert grouped[2] == grouped[3], name
        by = {field.strip() for field in grouped[1].split(",")}
        asked = set(re.findall(r"(\w+):", without_texts(expr[: grouped.start()]))) | by
        assert asked <= known, f"{name}: {asked - known} is declared by no source of it"
        assert "host" in by, name
        shown = set(re.findall(r"\$labels\.(\w+)", " ".join([*rule["annotations"].values(), *rule["labels"].values()])))
        assert shown <= by, f"{name}: {shown - by} is no label of it"


def cases(path: Path) -> list[dict[str, Any]]:
    """Give the tests beside a file of log rules."""
    return list(yaml.safe_load((path.parent / "log_rules_test.yml").read_text())["tests"])


@pytest.mark.parametrize("path", FILES, ids=role_of)
def test_each_log_alert_has_lines_that_it_is_made_of_and_lines_that_it_is_not(path: Path) -> None:
    for case in cases(path):
        assert set(case) <= {"alertname", "unit", "identifier", "file", "labels", "fires", "silent"}, case
        assert case["fires"], case
        assert case["silent"], case
    assert {case["alertname"] for case in cases(path)} == {rule["alert"] for rule in rules(path)}


lines = load("log_shipper", "log_lines")


def documents(role: str, case: dict[str, Any], kind: str, host: str) -> Iterator[dict[str, Any]]:
    """Yield what the shipper makes of a case's lines, written now."""
    declared = [{key: list(value) if isinstance(value, tuple) else value for key, value in vars(one).items()} for one in sources(role)]
    maker = lines.Lines({"site": "hq", "host": host, "masks": list(MASKS), "own_masks": {}, "sources": declared})
    for given in case[kind]:
        place = case | given
        journal = {
            "MESSAGE": given["line"],
            "_SYSTEMD_UNIT": place.get("unit", ""),
            "SYSLOG_IDENTIFIER": place.get("identifier", ""),
            "PRIORITY": "6",
        }
        tag = f"file.{place['file']}:" if "file" in place else ""
        entry = {"msg": given["line"], "syslogtag": tag, "$!": {} if tag else journal}
        document = maker.document(entry) | {"@timestamp": lines.stamp(time.time())}
        for dummy in range(given.get("times", 1)):
            yield document


@contextmanager
def store(directory: Path) -> Iterator[str]:
    """Run VictoriaLogs on free ports; give its address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [str(victorialogs.PROGRAMS["victoria-logs"]), f"-httpListenAddr={address}", f"-storageDataPath={directory}", "-retentionPeriod=7d"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            deadline = time.monotonic() + STARTS_S
            while not answers(f"http://{address}/health"):
                assert running.poll() is None, "VictoriaLogs has ended"
                assert time.monotonic() < deadline, "VictoriaLogs does not answer"
                time.sleep(0.05)
            yield f"http://{address}"
        finally:
            running.terminate()


def answers(url: str) -> bool:
    """Tell whether something answers."""
    try:
        ask(url)
    except OSError:
        return False
    return True


def ask(url: str, data: bytes | None = None, **parameters: str) -> str:
    """Ask a server at loopback."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    # Without a type of its own, a body is taken for a form and read away.
    request = urllib.request.Request(f"{url}?{urllib.parse.urlencode(parameters)}", data, {"Content-Type": "application/json"})  # noqa: S310
    with opener.open(request, timeout=30) as answer:
        return str(answer.read().decode())


def test_log_alerts_are_made_of_their_lines_alone(tmp_path: Path) -> None:
    """By the program that evaluates them, of lines as the shipper sends them: each case is a host of its own."""
    if not victorialogs.PROGRAMS["victoria-logs"].is_file():
        pytest.skip("there is no VictoriaLogs (python3 lab/prepare.py victorialogs)")
    exprs = {rule["alert"]: rule["expr"] for path in FILES for rule in rules(path)}
    found = [(role_of(path), exprs[case["alertname"]], case) for path in FILES for case in cases(path)]
    written = []
    for number, (role, dummy, case) in enumerate(found):
        written += [one for kind in ("fires", "silent") for one in documents(role, case, kind, f"{kind}{number}")]
    with store(tmp_path / "data") as url:
        named = {"_time_field": "@timestamp", "_msg_field": "message", "_stream_fields": "site,host,service"}
        ask(f"{url}/insert/jsonline", "\n".join(map(json.dumps, written)).encode(), **named)
        deadline = time.monotonic() + STARTS_S
        while f'"lines":"{len(written)}"' not in ask(f"{url}/select/logsql/query", query="* | stats count() as lines"):
            assert time.monotonic() < deadline, "the lines cannot be found"
            time.sleep(0.1)
        # As vmalert asks: a time in whole seconds. It is later than that of each line.
        moment = f"{time.time() + 2:.0f}"
        for number, (dummy, expr, case) in enumerate(found):
            said = json.loads(ask(f"{url}/select/logsql/stats_query", query=expr, time=moment))
            metrics = [one["metric"] for one in said["data"]["result"]]
            mine = [one for one in metrics if one["host"] in {f"fires{number}", f"silent{number}"}]
            assert [one["host"] for one in mine] == [f"fires{number}"], (case["alertname"], mine)
            assert case.get("labels", {}).items() <= mine[0].items(), (case["alertname"], mine)
