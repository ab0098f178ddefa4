"""What roles declare of their logs, what the roles of logs refuse, and what their programs count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.log_sources import clashes, declared_logs, masks_refused
from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import DeclarationError

from tests.role_program import PROJECT, load_file
from tests.unit import role_variables

DECLARATIONS = sorted(PROJECT.glob("roles/*/monitoring/logs.yml"))
CLUSTER = """
plugin: sovereign.dify.cluster
name: example
domain: bank.example
sites:
  hq:
    clearance: internal
    networks: [198.18.1.0/24]
    admin_networks: [198.18.1.0/24]
    hosts:
      hq-mon1: {address: 198.18.1.51, groups: [log_store]}
      hq-mon2: {address: 198.18.1.52, groups: [log_store]}
      hq-db1: {address: 198.18.1.21, groups: [etcd]}
"""
ALERTS = {"log_store_alert_archive": "/srv/vmutils-linux-amd64-v1.124.0.tar.gz", "log_store_alert_archive_sha256": "1" * 64}
MANAGERS = [{"name": "hq-mon1", "address": "198.18.1.51"}, {"name": "hq-mon2", "address": "198.18.1.52"}]
STORE = {"log_store_archive": "/srv/victoria-logs-linux-amd64-v1.24.0.tar.gz", "log_store_archive_sha256": "0" * 64}


def read(role: str, name: str, **changes: Any) -> Any:
    host = "hq-db1" if role == "log_shipper" else "hq-mon1"
    given = role_variables.role_variables(role, CLUSTER, host)
    return role_variables.rendered(f"{{{{ {name} }}}}", given | {"ansible_managed": "Managed"} | changes)


def test_a_declaration_is_put_in_one_form() -> None:
    [one] = declared_logs("r", {"sources": {"ledger": {"units": ["ledger.service"], "pattern": "(?P<seconds>[0-9]+)s", "numbers": ["seconds"]}}})
    assert (one.name, one.role, one.service, one.units, one.files, one.format) == ("ledger", "r", "ledger", ("ledger.service",), (), "text")
    assert (one.pattern, one.numbers, one.fields) == ("(?P<seconds>[0-9]+)s", ("seconds",), {})


U: dict[str, Any] = {"units": ["x.service"]}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({}, "a: no lines: give units, identifiers or files"),
        (U | {"unit": 1}, "a.unit: unknown; known are"),
        ({"units": "x.service"}, "a.units: give a list"),
        ({"units": ["nginx"]}, "a.units: 'nginx' is no unit: write its name with its type"),
        ({"files": ["var/log/x"]}, "a.files: 'var/log/x' is no path"),
        ({"files": ["/var/*/x.log"]}, "a.files: '/var/*/x.log' is no path"),
        ({"files": ['/var/x".log']}, "a.files:"),
        (U | {"service": "A b"}, "a.service: 'A b' is no name"),
        (U | {"format": "xml"}, "a.format: 'xml' is none; known are json, text"),
        (U | {"fields": {"x": "y"}}, "a.fields: those are for lines of JSON"),
        (U | {"format": "json", "fields": ["x"]}, "a.fields: give a mapping"),
        (U | {"format": "json", "fields": {"host": "y"}}, "a: the field 'host' cannot be given"),
        (U | {"pattern": "(?P<message>.*)"}, "a: the field 'message' cannot be given"),
        (U | {"pattern": "("}, "a.pattern: no regular expression of Python"),
        (U | {"pattern": "(.*)"}, "a.pattern: it has no named group"),
        (U | {"pattern": "(?P<a>.)", "numbers": ["b"]}, "a.numbers: 'b' is no group of the pattern"),
        ([], "a: give a mapping of"),
    ],
)
def test_nonsense_is_refused_by_its_place(source: object, told: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        declared_logs("r", {"sources": {"a": source}})
    assert str(refused.value).startswith(f"r: sources.{told}")


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "r: give a mapping of sources"),
        ({}, "r.sources: required"),
        ({"sources": []}, ""),
        ({"sources": ["a"]}, "r: sources: give a mapping by name"),
        ({"sources": {"A b": U}}, "r: sources: 'A b' is no name"),
    ],
)
def test_a_document_without_sources_is_refused(document: object, told: str) -> None:
    if not told:
        assert declared_logs("r", document) == []
        return
    with pytest.raises(DeclarationError) as refused:
        declared_logs("r", document)
    assert str(refused.value).startswith(told)


def test_a_line_belongs_to_one_source() -> None:
    first = declared_logs("a", {"sources": {"one": {"units": ["x.service"], "files": ["/x"], "identifiers": ["x"]}}})
    for other in ({"units": ["x.service"]}, {"files": ["/x"]}, {"identifiers": ["x"]}):
        assert "is also that of a: sources.one" in clashes(first + declared_logs("b", {"sources": {"two": other}}))
    assert "the name one is also that" in clashes(first + declared_logs("b", {"sources": {"one": {"units": ["y.service"]}}}))
    assert clashes(first + declared_logs("b", {"sources": {"two": {"units": ["y.service"]}}})) == ""


def test_all_declarations_of_this_collection_go_together() -> None:
    found = []
    for path in DECLARATIONS:
        found += declared_logs(path.parts[-3], yaml.safe_load(path.read_text()))
    assert clashes(found) == ""
    assert {"nginx", "model_gateway", "dify", "postgresql", "redis", "rabbitmq", "etcd", "vllm", "sshd"} <= {one.service for one in found}


def test_masks_that_cannot_work_are_refused() -> None:
    assert masks_refused(["keys", "emails"], {"customer": r"KD-\d+"}) == ""
    assert masks_refused(["names"], {}).startswith("'names' is no mask; known are keys")
    assert masks_refused([], {"x": "("}).startswith("the pattern x is no regular expression of Python")
    assert masks_refused([], {"x": "a*"}).startswith("the pattern x matches an empty text")


def test_what_is_right_is_not_refused() -> None:
    assert read("log_shipper", "__log_shipper_faults") == []
    assert read("log_store", "__log_store_faults", **STORE) == []
    assert read("log_store", "__log_store_faults", **STORE, log_store_retention_days=30, log_store_short_retention=True) == []
    assert read("log_store", "__log_store_faults", **STORE, **ALERTS) == []
    elastic = [{"name": "elastic", "url": "https://elastic.bank.example:9200", "user": "u", "password": "p"}]
    assert read("log_shipper", "__log_shipper_faults", log_shipper_targets=elastic) == []


@pytest.mark.parametrize(
    ("role", "changes", "told"),
    [
        ("log_store", {"log_store_archive": ""}, "Give log_store_archive"),
        ("log_store", {"log_store_archive_sha256": "abc"}, "Give log_store_archive"),
        ("log_store", ALERTS | {"log_store_alert_archive_sha256": ""}, "Give log_store_alert_archive_sha256"),
        ("log_store", {"log_store_retention_days": 179}, "(179) is less than 180"),
        ("log_store", {"log_store_retention_days": 0, "log_store_short_retention": True}, "must be from 1"),
        ("log_store", {"log_store_max_size": "200"}, "must be sizes such as 200GiB"),
        ("log_store", {"log_store_min_free": "-1GiB"}, "must be sizes such as 200GiB"),
        ("log_store", {"log_store_directory": "/srv"}, "must be an absolute path"),
        ("log_store", {"log_store_writers": []}, "no host could add a line"),
        ("log_shipper", {"log_shipper_targets": []}, "nowhere to ship to"),
        ("log_shipper", {"log_shipper_targets": [{"name": "a/b", "url": "https://x:1"}]}, "needs a name of letters"),
        ("log_shipper", {"log_shipper_targets": [{"name": "a", "url": "http://x:1"}]}, "an url with https://"),
        ("log_shipper", {"log_shipper_targets": [{"name": "a", "url": "https://x:1/"}]}, "without a / at its end"),
        ("log_shipper", {"log_shipper_targets": [{"name": "a", "url": "https://x:1"}, {"name": "a", "url": "https://y:1"}]}, "two of one name"),
        ("log_shipper", {"log_shipper_queue_size": "4GB"}, "is no size such as 4g"),
        ("log_shipper", {"log_shipper_masks": ["names"]}, "'names' is no mask"),
        ("log_shipper", {"log_shipper_own_masks": {"x": "["}}, "no regular expression"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(role: str, changes: dict[str, Any], told: str) -> None:
    given = STORE | changes if role == "log_store" else changes
    found = read(role, f"__{role}_faults", **given)
    assert len(found) == 1
    assert told in found[0]


def test_each_store_is_a_target_with_a_queue_of_its_own() -> None:
    targets = read("log_shipper", "log_shipper_targets")
    assert targets == [
        {"name": "hq-mon1", "url": "https://198.18.1.51:9449/insert/elasticsearch"},
        {"name": "hq-mon2", "url": "https://198.18.1.52:9449/insert/elasticsearch"},
    ]
    text = (PROJECT / "roles/log_shipper/templates/shipper.conf.j2").read_text()
    written = read("log_shipper", "x", x=role_variables.trusted(f"#jinja2: trim_blocks: True\n{text}"), log_shipper_groups=["baseline"])
    assert written.count('queue.type="Disk"') == 2
    assert written.count('queue.timeoutEnqueue="100"') == 2
    assert 'queue.filename="to_hq-mon2"' in written
    assert 'File="/var/log/audit/audit.log" Tag="file.audit:"' in written


def test_sizes_are_counted_in_bytes() -> None:
    assert read("log_store", "__log_store_max_bytes", log_store_max_size="200GiB") == 200 * 1024**3
    assert read("log_store", "__log_store_max_bytes", log_store_max_size="5TB") == 5 * 10**12


def test_all_hosts_of_a_site_with_a_store_may_add_and_members_may_ask() -> None:
    writers = read("log_store", "__log_store_firewall_rules[0].peers")
    assert writers == ["198.18.1.21", "198.18.1.52"]
    assert [host["name"] for host in read("log_store", "log_store_readers")] == ["hq-mon1", "hq-mon2"]


def test_alerts_of_logs_need_a_program_and_an_alertmanager() -> None:
    assert read("log_store", "__log_store_alerting") is False
    assert read("log_store", "__log_store_alerting", **ALERTS) is False, "this site has no Alertmanager"
    assert read("log_store", "__log_store_alerting", log_store_alertmanagers=MANAGERS) is False
    assert read("log_store", "__log_store_alerting", **ALERTS, log_store_alertmanagers=MANAGERS) is True
    for alertmanagers, ports, peers in (([], [9428], []), (MANAGERS, [9428, 8880], ["198.18.1.52"])):
        given = {**STORE, **ALERTS, "log_store_alertmanagers": alertmanagers}
        assert read("log_store", "__log_store_listen[1]", **given) == {"address": "127.0.0.1", "ports": ports}
        rule = read("log_store", "__log_store_firewall_rules[1]", **given)
        assert (rule["chain"], rule["ports"], rule["peers"]) == ("output", [9093], peers)


def test_every_member_tells_every_alertmanager_with_the_same_labels() -> None:
    given = role_variables.role_variables("log_store", CLUSTER, "hq-mon1") | ALERTS
    unit = role_variables.template("log_store", "log_alerts.service", given | {"ansible_managed": "Managed", "log_store_alertmanagers": MANAGERS})
    for address in ("198.18.1.51", "198.18.1.52"):
        assert f"  -notifier.url=https://{address}:9093 \\\n" in unit
        assert f"\nIPAddressAllow={address}\n" in unit
    assert "-external.label=cluster=example" in unit
    assert "-external.label=site=hq" in unit
    command = unit[unit.index("ExecStart=") : unit.index("\nRestart=")]
    assert all(line.endswith("\\") for line in command.splitlines()[:-1]), command
    assert "hq-mon1" not in command, "what only one member says would make two alerts of one"


def test_the_rules_of_the_sites_groups_and_ones_own_are_checked_by_vmalert() -> None:
    given = {**STORE, **ALERTS, "log_store_alert_groups": ["baseline", "etcd", "redis"], "log_store_alert_extra_rules": ["/srv/own.yml"]}
    found = read("log_store", "__log_store_alert_files", **given)
    assert [one["dest"].rpartition("/")[2] for one in found] == ["baseline.yml", "redis.yml", "extra_own.yml"]
    checked = "/usr/local/lib/sovereign/log_store/1111111111111111/vmalert-prod -dryRun -loggerLevel=ERROR -rule.defaultRuleType=vlogs -rule=%s"
    assert {one["validate"] for one in found} == {checked}


def test_what_vmalert_says_of_its_rules_is_told_in_sentences() -> None:
    rule = {"name": "A", "health": "ok", "lastError": "", "lastEvaluation": "2026-11-30T19:05:58Z"}

    def unwell(*rules: dict[str, str]) -> list[str]:
        return list(read("log_store", "__log_store_alerts_unwell", __log_store_rules_answer={"json": {"data": {"groups": [{"rules": list(rules)}]}}}))

    assert unwell(rule) == []
    [said] = unwell(rule, rule | {"name": "B", "lastEvaluation": "0001-01-01T00:00:00Z"})
    assert said.startswith("vmalert has not evaluated B in a minute")
    [said] = unwell(rule, rule | {"name": "C", "health": "err", "lastError": "no such pipe"})
    assert said.startswith("vmalert cannot evaluate C: no such pipe. Mend the expression")
    [said] = read("log_store", "__log_store_alerts_unwell", __log_store_rules_answer={"msg": "Connection refused"})
    assert said.startswith("vmalert does not answer at 127.0.0.1:8880 (Connection refused)")


STATS = """1 { "name": "to_one", "origin": "core.action", "processed": 5, "suspended": 0, "resumed": 0 }
half a line
100 { "name": "unmasked", "origin": "core.action", "processed": 2 }
100 { "name": "to_one", "origin": "core.action", "processed": 900, "failed": 0, "suspended": 3, "suspended.duration": 9, "resumed": 2 }
100 { "name": "to_one queue[DA]", "origin": "core.queue", "size": 40, "enqueued": 50, "full": 0, "discarded.full": 3, "discarded.nf": 0 }
100 { "name": "to_one queue", "origin": "core.queue", "size": 7, "enqueued": 950, "full": 0, "discarded.full": 1, "discarded.nf": 0 }
"""


def test_what_the_shipper_counts_becomes_metrics(tmp_path: Path) -> None:
    program = load_file("roles/log_shipper/monitoring/log_shipper_metrics.py")
    (tmp_path / "stats").write_text(STATS)
    (tmp_path / "to_one.00000001").write_bytes(b"x" * 100)
    (tmp_path / "to_one.00000002").write_bytes(b"x" * 50)
    (tmp_path / "refused_one").write_text("refused")
    found = dict(line.rsplit(" ", 1) for line in program.metrics(tmp_path, 4096))
    assert found == {
        "sovereign_log_stats_time_seconds": "100",
        "sovereign_log_unmasked_lines_total": "2",
        "sovereign_log_queue_limit_bytes": "4096",
        'sovereign_log_queue_lines{target="one"}': "47",
        'sovereign_log_lost_lines_total{target="one"}': "4",
        'sovereign_log_sent_lines_total{target="one"}': "900",
        'sovereign_log_suspended{target="one"}': "1",
        'sovereign_log_queue_bytes{target="one"}': "150",
        'sovereign_log_refused_bytes{target="one"}': "7",
    }


def test_a_shipper_that_has_counted_nothing_yet_has_no_time(tmp_path: Path) -> None:
    program = load_file("roles/log_shipper/monitoring/log_shipper_metrics.py")
    assert next(iter(program.metrics(tmp_path, 1))) == "sovereign_log_stats_time_seconds 0"


def test_how_far_back_the_data_go_becomes_a_metric(tmp_path: Path) -> None:
    program = load_file("roles/log_store/monitoring/log_store_metrics.py")
    assert list(program.metrics(tmp_path, 190, 5)) == ["sovereign_log_store_retention_days 190", "sovereign_log_store_max_bytes 5"]
    for name in ("20261130", "20260601", "other"):
        (tmp_path / "partitions" / name).mkdir(parents=True)
    assert list(program.metrics(tmp_path, 190, 5))[-1] == "sovereign_log_store_oldest_day_time_seconds 1780272000"
