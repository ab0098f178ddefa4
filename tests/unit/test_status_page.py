"""What the role status_page refuses, and what it makes of a site: the page's data, HAProxy's configuration, hashes, firewall rules."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.filter.firewall_fragment import firewall_fragment
from ansible_collections.sovereign.dify.plugins.filter.page_dashboard import page_dashboard
from ansible_collections.sovereign.dify.plugins.filter.runbook_sections import runbook_sections
from ansible_collections.sovereign.dify.plugins.filter.sha512_crypt import sha512_crypt
from ansible_collections.sovereign.dify.plugins.module_utils.dashboards import UNITS, declared

from tests.unit import role_variables
from tests.unit.role_variables import PROJECT
from tests.unit.test_dashboards import ROLES, asked, known, recorded, uses

FILES = PROJECT / "roles/status_page/files"
CLUSTER = """
plugin: sovereign.dify.cluster
name: lab
domain: lab.internal
sites:
  hq:
    clearance: restricted
    networks: [198.18.1.0/24]
    admin_networks: [198.18.9.0/24]
    hosts:
      hq-mon1: {address: 198.18.1.51, groups: [prometheus]}
      hq-mon2: {address: 198.18.1.52, groups: [prometheus, status_page]}
      hq-db1: {address: 198.18.1.21, groups: [etcd]}
"""
PASSWORDS = {"operator": "pass-word", "auditor": "word-pass"}


def variables(host: str = "hq-mon2", **changes: Any) -> dict[str, Any]:
    given = role_variables.role_variables("status_page", CLUSTER, host)
    return given | {"ansible_managed": "Managed", "status_page_passwords": PASSWORDS} | changes


def read(name: str, **changes: Any) -> Any:
    return role_variables.rendered(f"{{{{ {name} }}}}", variables(**changes))


def configuration(**changes: Any) -> str:
    return role_variables.template("status_page", "haproxy.cfg", variables(**changes))


# --- What is refused --------------------------------------------------------------------------------------------------------------------------------


def test_what_is_right_is_not_refused() -> None:
    assert read("__status_page_faults") == []
    assert read("__status_page_faults", status_page_users=["operator", "night-shift_2"], status_page_client_networks=[]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status_page_users": []}, "status_page_users is empty: nobody could log in."),
        ({"status_page_users": ["operator", "Anna"]}, "status_page_users (operator, Anna) holds a name that is none"),
        ({"status_page_users": ["x password y"]}, "holds a name that is none"),
        ({"status_page_users": ["a\n"]}, "holds a name that is none"),
        ({"status_page_users": ["../grafana/admin"]}, "holds a name that is none"),
        ({"status_page_users": ["a", "a"]}, "status_page_users (a, a) holds a name twice."),
        ({"status_page_prometheus": []}, "status_page_prometheus is empty: there is nothing to show."),
        ({"status_page_client_networks": ["0.0.0.0/0"]}, "status_page_client_networks (0.0.0.0/0) holds all networks"),
        ({"status_page_client_networks": ["::/0"]}, "holds all networks"),
        ({"status_page_failed_logins": 0}, "status_page_failed_logins (0) must be from 1 to 1000"),
    ],
)
def test_what_is_wrong_is_said_alone(changes: dict[str, Any], said: str) -> None:
    found = read("__status_page_faults", **changes)
    assert len(found) == 1, found
    assert said in found[0]


# --- The login --------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["a", "pass-word", "x" * 43, "y" * 64, "ä" * 100])
@pytest.mark.parametrize("salt", ["a", "0123456789abcdef"])
def test_the_hash_is_that_of_openssl(password: str, salt: str) -> None:
    done = subprocess.run(["openssl", "passwd", "-6", "-salt", salt, password], capture_output=True, text=True, check=True)
    assert sha512_crypt(password, salt) == done.stdout.strip()


def test_a_hash_that_keeps_nobody_out_is_not_made() -> None:
    with pytest.raises(AnsibleFilterError, match="the password is empty"):
        sha512_crypt("", "salt")
    for salt in ("", "x" * 17, "a$b", "a b"):
        with pytest.raises(AnsibleFilterError, match="must be up to 16 letters"):
            sha512_crypt("password", salt)


def test_users_are_known_by_hashes_that_stay_and_differ() -> None:
    both = {"status_page_users": ["operator", "auditor"]}
    text = configuration(**both)
    assert text == configuration(**both)
    users = dict(re.findall(r"^    user (\S+) password (\S+)$", text, re.MULTILINE))
    assert users.keys() == PASSWORDS.keys()
    for user, found in users.items():
        assert sha512_crypt(PASSWORDS[user], found.split("$")[2]) == found
        assert PASSWORDS[user] not in text
    elsewhere = configuration(status_page_site="edge", **both)
    assert not set(users.values()) & set(re.findall(r"^    user \S+ password (\S+)$", elsewhere, re.MULTILINE))


def test_the_address_is_refused_before_the_password_is_looked_at() -> None:
    lines = configuration().splitlines()
    parts = ("track-sc0", "status 429", "http_auth(readers)", "http-request auth")
    places = [next(number for number, line in enumerate(lines) if part in line) for part in parts]
    assert places == sorted(places)
    first_file = next(number for number, line in enumerate(lines) if "status 200" in line)
    assert first_file > places[-1], "nothing is served before the login"


# --- HAProxy ----------------------------------------------------------------------------------------------------------------------------------------


def test_the_prometheus_of_the_host_is_asked_first() -> None:
    servers = re.findall(r"^    server (\S+) (\S+) .*?( backup)?$", configuration(), re.MULTILINE)
    assert servers == [("hq-mon2", "198.18.1.52:9090", ""), ("hq-mon1", "198.18.1.51:9090", " backup")]


def test_the_configuration_is_the_same_whatever_the_order_of_the_inventory() -> None:
    members = variables()["site"]["members"]["prometheus"]
    groups = {"hq-mon1": ["prometheus"], "hq-mon2": ["prometheus", "status_page"], "hq-db1": ["etcd"]}
    wanted = (read("__status_page_made", status_page_host_groups=groups), read("__status_page_buffer_bytes"))
    for seed in range(5):
        mixed = list(groups.items())
        random.Random(seed).shuffle(mixed)  # noqa: S311 - an order, no secret
        assert (read("__status_page_made", status_page_host_groups=dict(mixed)), read("__status_page_buffer_bytes")) == wanted
    assert read("__status_page_members", status_page_prometheus=members[::-1])[0]["name"] == "hq-mon2"


def test_all_that_is_served_fits() -> None:
    sizes = [len(text.encode()) for text in read("__status_page_made").values()]
    sizes += [(FILES / one["name"]).stat().st_size for one in read("__status_page_served") if (FILES / one["name"]).exists()]
    assert max(sizes) + 16384 < read("__status_page_buffer_bytes")
    whole = read("__status_page_buffer_bytes", status_page_groups=ROLES)
    assert len(read("__status_page_made", status_page_groups=ROLES)["site.json"].encode()) + 16384 < whole <= 1 << 20


def test_clients_alone_come_in_and_it_goes_to_the_other_prometheus() -> None:
    rules = read("__status_page_firewall_rules")
    assert [(rule["chain"], rule["ports"], rule["peers"]) for rule in rules] == [
        ("input", [9448], ["198.18.9.0/24"]),
        ("output", [9090], ["198.18.1.51"]),
    ]
    assert "198.18.9.0/24" in firewall_fragment(rules, "status_page")


def test_prometheus_lets_it_in() -> None:
    given = role_variables.role_variables("prometheus", CLUSTER, "hq-mon1")
    alone = given | {"site": given["site"] | {"members": given["site"]["members"] | {"prometheus": []}}}
    assert [one["name"] for one in role_variables.rendered("{{ prometheus_clients }}", alone)] == ["hq-mon2"]


def test_haproxy_takes_it(tmp_path: Path) -> None:
    if not shutil.which("haproxy"):
        pytest.skip("there is no haproxy (apt install haproxy)")
    for one in read("__status_page_served"):
        (tmp_path / one["name"]).write_text("x")
    pem = tmp_path / "host.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-days", "1"]
    done = subprocess.run([*command, "-keyout", "-", "-out", "-"], capture_output=True, text=True, check=True, cwd=tmp_path)
    pem.write_text(done.stdout)
    paths = {"__status_page_static": str(tmp_path), "status_page_certificate": str(pem), "status_page_authority": str(pem)}
    file = tmp_path / "haproxy.cfg"
    file.write_text(configuration(**paths) + "\n")
    checked = subprocess.run(["haproxy", "-c", "-q", "-f", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


# --- What is shown ----------------------------------------------------------------------------------------------------------------------------------


def test_the_page_gets_hosts_and_dashboards_of_the_site() -> None:
    found = json.loads(read("__status_page_made")["site.json"])
    assert (found["cluster"], found["site"]) == ("lab", "hq")
    assert set(found["hosts"]) == {"hq-mon1", "hq-mon2", "hq-db1"}
    assert "status_page" in found["hosts"]["hq-mon2"]
    roles = {one["role"] for one in found["dashboards"]}
    assert {"etcd", "prometheus", "baseline"} <= roles
    assert "redis" not in roles
    titles = {panel["title"] for one in found["dashboards"] for row in one["rows"] for panel in row["panels"]}
    assert "etcd leader" in titles
    assert "Redis masters" not in titles
    figures = {panel["title"] for row in found["overview"]["rows"] for panel in row["panels"]}
    assert "First certificate expires in" in figures
    assert "Requests (QPS)" not in figures, "the site has no entry"


def test_every_query_and_every_state_reaches_the_page() -> None:
    for role in ROLES:
        document = yaml.safe_load((PROJECT / f"roles/{role}/monitoring/dashboard.yml").read_text())
        found = page_dashboard(document, role, ROLES)
        given = declared(role, document)
        panels = [panel for row in given.rows for panel in row.panels]
        drawn = [panel for row in found["rows"] for panel in row["panels"]]
        assert [panel["title"] for panel in drawn] == [panel.title for panel in panels]
        for panel, one in zip(panels, drawn, strict=True):
            assert [query["expr"] for query in one["queries"]] == [query.expr for query in panel.queries]
            assert {state["value"]: (state["text"], state["level"]) for state in one.get("states", [])} == {
                value: (state.text, state.level) for value, state in panel.states.items()
            }
            assert [(column["label"], column["heading"]) for column in one.get("columns", [])] == list(panel.columns.items())
            assert one.get("minimum") == panel.minimum
            assert one.get("maximum") == panel.maximum
        json.dumps(found)


def test_zero_says_something_and_nothing_does_not() -> None:
    panel = {"title": "P", "kind": "timeseries", "min": 0, "decimals": 0, "queries": [{"expr": "up", "legend": "{instance}"}]}
    (row,) = page_dashboard({"title": "D", "rows": [{"title": "R", "panels": [panel]}]}, "r", [])["rows"]
    (found,) = row["panels"]
    assert (found["minimum"], found["decimals"]) == (0, 0)
    assert not {"maximum", "stack", "states", "columns", "thresholds", "description"} & set(found)
    with pytest.raises(AnsibleFilterError, match=r"dashboard of r\.title: required"):
        page_dashboard({"rows": []}, "r", [])


def overview() -> Any:
    return declared("overview", yaml.safe_load((FILES / "overview.yml").read_text()))


def test_the_overview_asks_for_what_exists() -> None:
    names = recorded() | set(known())
    for where, expr in asked(overview()):
        for use in uses(expr):
            assert use.name in names, f"{where}: nobody knows {use.name}"
    for row in overview().rows:
        for panel in row.panels:
            assert {panel.role or row.role} <= set(ROLES)


def test_what_the_overview_leaves_out_exists() -> None:
    text = (FILES / "page.js").read_text()
    left_out = set(re.findall(r'"([^"]+)"', re.search(r"const SAID = new Set\(\[(.*?)\]\)", text)[1]))  # type: ignore[index]
    document = yaml.safe_load((PROJECT / "roles/prometheus/monitoring/dashboard.yml").read_text())
    assert left_out <= {panel["title"] for row in document["rows"] for panel in row["panels"]}


def test_the_page_knows_every_unit() -> None:
    text = (FILES / "page.js").read_text()
    for unit in set(UNITS) - {"none"}:
        assert re.search(rf'case "{unit}":|\b{unit}: "', text), unit


FORBIDDEN = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "new Function", "@import", "url(", "http:", 'Attribute("style"')


def test_the_page_makes_no_markup_and_asks_nobody_else() -> None:
    for name in ("page.js", "index.html", "page.css"):
        text = (FILES / name).read_text().replace("http://www.w3.org/2000/svg", "")
        for forbidden in FORBIDDEN:
            assert forbidden not in text, (name, forbidden)
        addresses = set(re.findall(r"https://[^\s\"'`)]+", text))
        assert addresses == set(), name
    page = (FILES / "index.html").read_text()
    assert " style=" not in page
    assert "<style" not in page
    assert not re.search(r"\son\w+=", page)
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', page)) <= {one["path"][1:] for one in read("__status_page_served")}


def luminance(colour: str) -> float:
    """That of WCAG 2, from 0 (black) to 1 (white)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for lines of charts."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", (FILES / "page.css").read_text(), re.DOTALL)
    )
    colours = light if scheme == "light" else light | dark
    assert light.keys() == dark.keys()
    grounds = [colours[name] for name in ("surface", "ground", "neutral-ground")]
    for name in ("text", "soft", "accent"):
        assert min(contrast(colours[name], ground) for ground in grounds) >= 4.5, name
    for level in ("good", "warning", "critical", "neutral"):
        assert min(contrast(colours[level], colours[ground]) for ground in ("surface", f"{level}-ground")) >= 4.5, level
    assert contrast(colours["axis"], colours["surface"]) >= 4.5
    for number in range(8):
        assert contrast(colours[f"s{number}"], colours["surface"]) >= 3, number


# --- Runbooks ---------------------------------------------------------------------------------------------------------------------------------------


def test_a_runbook_is_split_at_its_alerts() -> None:
    found = runbook_sections("# Runbook: r\n\nState: x.\n\n## RDown\n\nIt is down.\n\n**Do** it.\n\n## R-Slow\n\nSlow.\n", "docs/runbooks/r.md")
    assert found == {
        "docs/runbooks/r.md#rdown": {"heading": "RDown", "text": "It is down.\n\n**Do** it."},
        "docs/runbooks/r.md#r-slow": {"heading": "R-Slow", "text": "Slow."},
    }


def test_each_alert_of_the_site_has_its_page() -> None:
    found = json.loads(read("__status_page_made", status_page_groups=ROLES)["runbooks.json"])
    for path in [*PROJECT.glob("roles/*/monitoring/rules.yml"), *PROJECT.glob("roles/*/monitoring/log_rules.yml")]:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    assert rule["annotations"]["runbook"] in found, rule["alert"]
    assert not any("redis.md" in one for one in json.loads(read("__status_page_made")["runbooks.json"]))
