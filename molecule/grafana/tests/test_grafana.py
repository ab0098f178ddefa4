"""Dashboards and data sources are provisioned, and Prometheus answers all that they ask; who may not look sees nothing.

Against a program that stands in for Grafana, with the paths, unit and user of its package: what only Grafana itself can show is in the role's README.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from lab.testing import PROJECT, changed, rerun, tls_faults

ADDRESS = "198.18.58.11"
BASE = f"https://{ADDRESS}:3000"
SCENARIO = PROJECT / "molecule/grafana"
WANTED = {f"sovereign-{role}" for role in ("baseline", "exporters", "firewall", "pki", "prometheus")}


def asked(host: Any, path: str, login: bool = True) -> tuple[str, str]:
    """Ask Grafana; give its status and its answer."""
    password = (SCENARIO / "inventory/.state/secrets/grafana/admin").read_text().strip()
    user = f"--user 'admin:{password}'" if login else ""
    command = f"curl --silent --max-time 20 --cacert /etc/sovereign/pki/ca.crt {user} --write-out '\\n%{{http_code}}' '{BASE}{path}'"
    body, _, status = host.run(command).stdout.rpartition("\n")
    return status, body


def uids(on: Any) -> set[str]:
    status, body = asked(on("admin"), "/api/search?type=dash-db")
    assert status == "200"
    return {board["uid"] for board in json.loads(body)}


def test_each_role_of_the_site_has_its_dashboard(on: Any) -> None:
    assert uids(on) == WANTED


@pytest.mark.parametrize("source", ["prometheus-one", "prometheus-two"])
def test_both_members_of_prometheus_answer(on: Any, source: str) -> None:
    assert asked(on("admin"), f"/api/datasources/uid/{source}/health") == ("200", '{"status": "OK"}')


@pytest.mark.parametrize("uid", sorted(WANTED))
def test_prometheus_answers_all_that_a_dashboard_asks(on: Any, uid: str) -> None:
    board = json.loads(on("one").check_output(f"cat /etc/sovereign/grafana/dashboards/{uid.removeprefix('sovereign-')}.json"))
    exprs = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert exprs
    for expr in exprs:
        # What Grafana puts in for a variable of which everything is selected.
        everything = re.sub(r"\$\w+", ".*", expr)
        status, body = asked(on("admin"), f"/api/ds/query?uid=prometheus-one&expr={quote(everything)}")
        assert status == "200", f"{expr}: {body}"


def test_the_overview_knows_the_hosts_and_that_nothing_is_down(on: Any) -> None:
    def value(expr: str) -> float:
        body = json.loads(asked(on("admin"), f"/api/ds/query?uid=prometheus-one&expr={quote(expr)}")[1])
        return float(body["data"]["result"][0]["value"][1])

    declared = yaml.safe_load((PROJECT / "roles/prometheus/monitoring/dashboard.yml").read_text())
    exprs = {panel["title"]: panel["queries"][0]["expr"] for panel in declared["rows"][0]["panels"]}
    assert value(exprs["Hosts down"]) == 0
    assert value(exprs["First certificate expires in"]) > 21


def test_who_may_not_look_is_refused(on: Any) -> None:
    assert asked(on("admin"), "/api/search", login=False)[0] == "401"
    for host in ("stranger", "two"):
        assert asked(on(host), "/api/health")[0] == "000", "the firewall"


def test_old_tls_is_refused(on: Any) -> None:
    assert not tls_faults(on("admin"), f"{ADDRESS}:3000")


def test_no_secret_can_be_read_and_no_setting_changed_by_grafana(on: Any) -> None:
    host, place = on("one"), "/etc/sovereign/grafana"
    for file in ("admin_password", "secret_key", "grafana.ini"):
        assert host.run(f"runuser -u nobody -- cat {place}/{file}").rc, file
        assert host.run(f"runuser -u grafana -- test -w {place}/{file}").rc, file
    process = host.check_output("systemctl show --property=MainPID --value grafana-server.service").strip()
    assert process != "0"
    assert "NoNewPrivs:\t1" in host.check_output(f"cat /proc/{process}/status")
    password = (SCENARIO / "inventory/.state/secrets/grafana/admin").read_text().strip()
    assert password not in host.check_output("journalctl --no-pager --boot")


def test_prometheus_watches_it(on: Any) -> None:
    expr = quote('up{job="grafana"}')
    status, body = asked(on("admin"), f"/api/ds/query?uid=prometheus-two&expr={expr}")
    assert status == "200"
    assert [series["value"][1] for series in json.loads(body)["data"]["result"]] == ["1"]


def test_a_group_that_is_gone_takes_its_dashboard_along(on: Any) -> None:
    done = rerun("--limit=one", "--tags=grafana", grafana_groups=["prometheus", "baseline"])
    assert done.returncode == 0, done.stdout
    assert uids(on) == {"sovereign-baseline", "sovereign-prometheus"}
    done = rerun("--limit=one", "--tags=grafana")
    assert done.returncode == 0, done.stdout
    assert uids(on) == WANTED


def test_another_archive_is_refused() -> None:
    done = rerun("--limit=one", "--tags=grafana", grafana_archive_sha256="0" * 64)
    assert done.returncode
    assert "and not the declared one" in " ".join(done.stdout.split())


def test_a_password_that_grafana_does_not_take_is_told() -> None:
    done = rerun("--limit=one", "--tags=grafana", grafana_admin_password="another")
    assert done.returncode
    assert "Grafana does not take the password of admin" in " ".join(done.stdout.split())
    assert "another" not in done.stdout.partition("Refuse a Grafana")[2].replace("another one was set", "")
    done = rerun("--limit=one", "--tags=grafana")
    assert done.returncode == 0, done.stdout


def test_a_rerun_changes_nothing() -> None:
    done = rerun()
    assert set(changed(done).values()) == {0}, done.stdout
