"""The page is shown to whoever may look, in a browser, and draws what Prometheus knows; nothing but questions gets through."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.testing import PROJECT, changed, rerun, tls_faults

ADDRESS = "198.18.59.11"
BASE = f"https://{ADDRESS}:9448"
SCENARIO = PROJECT / "molecule/status_page"
SCREENSHOTS = PROJECT / ".cache/screenshots"
CONTAINER = "mol-status-page-client"
WIDTHS = {1280: 900, 390: 844}
SCHEMES = ("light", "dark")
Answer = tuple[str, str]
Looks = list[dict[str, Any]]


def password() -> str:
    return (SCENARIO / "inventory/.state/secrets/status_page/operator").read_text().strip()


def asked(host: Any, path: str, *options: str, login: str | None = None, address: str = ADDRESS) -> Answer:
    """Ask the page; give its status and its answer."""
    user = f"--user 'operator:{password() if login is None else login}'" if login != "" else ""
    trust = "--cacert /etc/sovereign/pki/ca.crt --noproxy '*' --max-time 10"
    command = f"curl --silent {trust} {user} {' '.join(options)} --write-out '\\n%{{http_code}}' 'https://{address}:9448{path}'"
    body, _, status = host.run(command).stdout.rpartition("\n")
    return status, body


def look(*visits: dict[str, Any], login: str | None = None) -> Looks:
    """Open the page in the client's browser; screenshots come to .cache/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    inside = [{**visit, "file": f"/root/{visit['file']}"} if "file" in visit else visit for visit in visits]
    wish = {"url": f"{BASE}/", "user": "operator", "password": password() if login is None else login, "visits": inside}
    subprocess.run(["docker", "cp", str(SCENARIO / "files/look.py"), f"{CONTAINER}:/root/look.py"], check=True)
    command = ["docker", "exec", "--interactive", CONTAINER, "/usr/bin/python3", "/root/look.py"]
    done = subprocess.run(command, input=json.dumps(wish), capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    for visit in visits:
        if "file" in visit:
            subprocess.run(["docker", "cp", f"{CONTAINER}:/root/{visit['file']}", str(SCREENSHOTS / visit["file"])], check=True)
    return list(json.loads(done.stdout))


def until(what: str, probe: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not in {seconds:.0f} s")


def vector(host: Any, expr: str) -> list[dict[str, Any]]:
    status, body = asked(host, "/api/v1/query", f"--data-urlencode 'query={expr}'")
    return list(json.loads(body)["data"]["result"]) if status == "200" else []


@pytest.fixture(scope="session", autouse=True)
def _metrics(on: Any) -> None:
    """What the page draws is there: all targets are up, and the alerts of the test fire."""
    until("all targets are up", lambda: len(vector(on("client"), 'up{job="gate"} == 1')) == 4, 90)
    until("rates can be told", lambda: vector(on("client"), 'rate(node_cpu_seconds_total{mode="idle"}[5m])'), 60)
    until("the alerts fire", lambda: len(vector(on("client"), 'ALERTS{alertstate="firing", role="ledger"}')) == 2, 60)


# --- Who may look -----------------------------------------------------------------------------------------------------------------------------------


def test_whoever_has_the_password_sees_the_page(on: Any) -> None:
    status, body = asked(on("client"), "/")
    assert status == "200"
    assert "<title>Status</title>" in body
    for path in ("/page.js", "/page.css", "/icon.svg", "/site.json", "/runbooks.json"):
        assert asked(on("client"), path)[0] == "200", path


@pytest.mark.parametrize("path", ["/", "/page.js", "/site.json", "/api/v1/query?query=1", "/nothing"])
def test_without_a_login_or_with_a_wrong_one_nothing_is_seen(on: Any, path: str) -> None:
    assert asked(on("client"), path, login="")[0] == "401"
    assert asked(on("client"), path, login="wrong")[0] == "401"
    assert asked(on("client"), path, "--header 'Authorization: Bearer x'", login="")[0] == "401"
    assert asked(on("client"), "/")[0] == "200"


def test_the_network_decides_first(on: Any) -> None:
    assert asked(on("client"), "/")[0] == "200"
    for host in ("stranger", "two"):
        assert asked(on(host), "/") == ("000", ""), "the firewall"


def test_passwords_are_not_guessed(on: Any) -> None:
    """From an address that fails too often nobody comes in, and others still do; a new process has forgotten it."""
    statuses = [asked(on("client"), "/", login=f"guess-{number}")[0] for number in range(25)]
    assert statuses.count("401") <= 20
    assert statuses[-1] == "429"
    status, body = asked(on("client"), "/")
    assert status == "429"
    assert "Too many failed logins" in body
    # From another address.
    assert asked(on("one"), "/")[0] == "200"
    on("one").check_output("systemctl restart status_page.service")
    until("it answers", lambda: asked(on("client"), "/")[0] == "200", 15)


def test_no_password_is_on_the_host_or_in_a_log(on: Any) -> None:
    host = on("one")
    configuration = "/etc/sovereign/status_page/haproxy.cfg"
    assert "$6$" in host.check_output(f"cat {configuration}")
    assert password() not in host.check_output(f"cat {configuration}")
    assert host.run(f"runuser -u nobody -- cat {configuration}").rc
    assert password() not in host.check_output("journalctl --no-pager --boot")
    asked(on("client"), "/", login="wrong")
    said = until("a failed login is noted", lambda: host.run("journalctl --no-pager -u status_page -n 50 | grep '\"status\":401'").stdout, 10)
    assert '"address":"198.18.59.13"' in said
    assert '"user":"operator"' in said
    process = host.check_output("systemctl show --property=MainPID --value status_page.service").strip()
    assert "NoNewPrivs:\t1" in host.check_output(f"cat /proc/{process}/status")


def test_old_tls_is_refused(on: Any) -> None:
    assert not tls_faults(on("client"), f"{ADDRESS}:9448")


HEADERS = ("strict-transport-security: max-age=", "x-content-type-options: nosniff", "referrer-policy: no-referrer", "cache-control: no-store")


def test_the_policy_is_strict_and_holds_for_errors_too(on: Any) -> None:
    for path, login in (("/", None), ("/", ""), ("/nothing", None), ("/api/v1/query?query=1", None)):
        head = asked(on("client"), path, "--dump-header -", login=login)[1].lower()
        policy = next(line for line in head.splitlines() if line.startswith("content-security-policy:"))
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert set(HEADERS) == {header for header in HEADERS if header in head}, path


# --- What gets through ------------------------------------------------------------------------------------------------------------------------------

REFUSED = [
    ("/api/v1/admin/tsdb/delete_series?match[]=up", "--request POST", "404"),
    ("/-/quit", "--request POST", "404"),
    ("/-/reload", "--request POST", "404"),
    ("/-/ready", "", "404"),
    ("/metrics", "", "404"),
    ("/federate?match[]=up", "", "404"),
    ("/api/v1/status/config", "", "404"),
    ("/api/v1/targets", "", "404"),
    ("/api/v1/write", "--request POST --data x", "404"),
    ("/api/v1/query/../status/config", "--path-as-is", "404"),
    ("/api/v1/query%2f..%2fstatus%2fconfig", "--path-as-is", "404"),
    ("//api/v1/query?query=1", "--path-as-is", "404"),
    ("/api/v1/query?query=1", "--request PUT", "405"),
    ("/api/v1/query?query=1", "--request DELETE", "405"),
    ("/api/v1/query?query=1", "--request OPTIONS", "405"),
    ("/api/v1/rules", "--request PATCH", "405"),
    ("/site.json", "--request POST", "405"),
    ("/", "--request PUT", "405"),
]


@pytest.mark.parametrize(("path", "option", "status"), REFUSED)
def test_nothing_but_questions_gets_through(on: Any, path: str, option: str, status: str) -> None:
    assert asked(on("client"), path, option, "--globoff")[0] == status


def test_questions_get_through(on: Any) -> None:
    for path in ("/api/v1/query?query=1", "/api/v1/query_range?query=up&start=1&end=2&step=1", "/api/v1/alerts", "/api/v1/rules"):
        status, body = asked(on("client"), path, "--globoff")
        assert (status, json.loads(body)["status"]) == ("200", "success"), path
    assert asked(on("client"), "/api/v1/query", "--data-urlencode 'query=count(up)'")[0] == "200"
    status, body = asked(on("client"), "/api/v1/query?query=sum(", "--globoff")
    assert (status, json.loads(body)["status"]) == ("400", "error")


def test_prometheus_watches_it(on: Any) -> None:
    until("it is watched", lambda: vector(on("client"), 'up{job="status_page", instance="one"} == 1'), 60)


# --- What is seen -----------------------------------------------------------------------------------------------------------------------------------

VISITS = [
    {"hash": f"#{page}?range=1h", "width": width, "height": height, "scheme": scheme, "file": f"{page}-{width}-{scheme}.png"}
    for page in ("overview", "baseline", "nginx", "vllm")
    for width, height in WIDTHS.items()
    for scheme in SCHEMES
]


@pytest.fixture(scope="session")
def seen() -> dict[tuple[str, int, str], dict[str, Any]]:
    """Give what each view has shown, by its page, width and colour scheme."""
    keys = [(str(one["hash"])[1:].partition("?")[0], int(str(one["width"])), str(one["scheme"])) for one in VISITS]
    return dict(zip(keys, look(*VISITS), strict=True))


def test_every_view_is_drawn_without_a_complaint(seen: dict[tuple[str, int, str], dict[str, Any]]) -> None:
    for key, found in seen.items():
        assert found["complaints"] == [], key
        assert found["failed"] == [], key
        assert found["trouble"] == "", key
        assert (found["overflow"], found["wide"]) == (0, []), key
        assert found["unnamed"] == [], key
        assert {one for one in found["elsewhere"] if not one.startswith(f"{BASE}/")} == set(), key
        assert "from Prometheus one" in found["freshness"], key
    print({key: found["seconds"] for key, found in seen.items()})


def test_light_is_light_and_dark_is_dark(seen: dict[tuple[str, int, str], dict[str, Any]]) -> None:
    for page, width, _ in seen:
        grounds = [sum(int(part) for part in seen[page, width, scheme]["ground"][4:-1].split(",")) for scheme in SCHEMES]
        assert grounds[0] > 600
        assert grounds[1] < 150


def test_the_overview_knows_hosts_services_alerts_and_figures(seen: dict[tuple[str, int, str], dict[str, Any]]) -> None:
    for width in WIDTHS:
        found = seen["overview", width, "light"]
        assert found["title"] == "Overview – hq (mol-status-page)"
        assert {"Site hq", "Alerts", "Figures", "Hosts", "Services", "Charts"} <= set(found["headings"])
        assert found["hosts"] == dict.fromkeys(("one", "two", "client", "stranger"), "up")
        assert "2 of 2 up" in found["services"]["prometheus"]
        alerts = [(severity, name) for severity, name, _ in found["alerts"]]
        assert alerts[0] == ("critical", "BooksDiffer"), "the gravest comes first"
        assert ("warning", "TargetDown") in alerts
        texts = {name: text for _, name, text in found["alerts"]}
        assert "<b>5 &amp; 7</b>" in texts["BooksDiffer"], "a text stays one"
        assert "What to do: TargetDown" in texts["TargetDown"]
        assert found["level"] == "critical"
        assert {"Requests (QPS)", "P99 of blocking requests", "Error budget left", "GPU utilization"} <= set(found["drawn"])


def test_every_panel_of_the_hosts_that_has_series_is_drawn(on: Any, seen: dict[tuple[str, int, str], dict[str, Any]]) -> None:
    _, body = asked(on("client"), "/site.json")
    declared = next(one for one in json.loads(body)["dashboards"] if one["role"] == "baseline")
    panels = [panel for row in declared["rows"] for panel in row["panels"]]
    having = {panel["title"] for panel in panels if any(vector(on("client"), query["expr"].replace("$instance", ".*")) for query in panel["queries"])}
    assert len(having) >= 12
    for width in WIDTHS:
        found = seen["baseline", width, "dark"]
        assert having <= set(found["drawn"])
        assert set(found["drawn"]) | set(found["empty"]) == {panel["title"] for panel in panels}


def test_all_kinds_of_panels_are_drawn(seen: dict[tuple[str, int, str], dict[str, Any]]) -> None:
    for width in WIDTHS:
        drawn = {kind for (_, wide, _), found in seen.items() if wide == width for kind in found["kinds"]}
        assert drawn == {"timeseries", "stat", "gauge", "table", "heatmap", "state"}


def test_it_is_used_by_keyboard() -> None:
    """Tab comes to the link past the menu, the range and the charts; a chart reads its values by the arrow keys."""
    press = """
      (async () => {
        const chart = document.querySelector('.panel[data-kind=timeseries][data-drawn=data] svg.chart');
        chart.focus();
        for (const key of ['End', 'ArrowLeft']) chart.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        const first = document.querySelector('a, button, select').textContent;
        return [first, document.activeElement === chart, chart.closest('.panel').querySelector('.tip').textContent];
      })()
    """
    (found,) = look({"hash": "#baseline?range=1h", "run": press, "file": "baseline-keyboard.png", "viewport": True})
    first, held, read = found["ran"]
    assert first == "Skip to the content"
    assert held
    assert "%" in read
    assert found["complaints"] == []


def test_a_selection_is_in_the_address_and_in_force() -> None:
    rows = "[...document.querySelectorAll('[aria-label=\"Host state\"] tbody th')].map((one) => one.textContent)"
    everything, one = look({"hash": "#baseline?range=1h", "run": rows}, {"hash": "#baseline?range=1h&instance=two", "run": rows})
    assert everything["ran"] == ["client", "one", "stranger", "two"]
    assert one["ran"] == ["two"]


def test_a_lost_login_is_said(on: Any) -> None:
    """A page that was opened asks on with a password that no longer holds."""
    lost = """
      (async () => {
        const genuine = window.fetch;
        window.fetch = (url, options) => genuine(url, {...options, credentials: 'omit'});
        document.getElementById('again').click();
        for (let wait = 0; wait < 100 && !document.getElementById('trouble').textContent; wait += 1) await new Promise((go) => setTimeout(go, 100));
        return document.getElementById('trouble').textContent;
      })()
    """
    (found,) = look({"run": lost, "file": "lost-login.png", "viewport": True})
    assert "The login is no longer valid" in found["ran"]
    assert "Shown is the state of" in found["ran"]


@pytest.fixture
def without(on: Any) -> Iterator[Callable[[str], None]]:
    """Stop Prometheus on a host, until the test has ended."""

    def stop(host: str) -> None:
        on(host).check_output("systemctl stop prometheus.service")

    yield stop
    for host in ("one", "two"):
        on(host).check_output("systemctl start prometheus.service")
        until("Prometheus is back", lambda: vector(on("client"), 'up{job="gate"} == 1'), 90)


def test_one_prometheus_is_enough(on: Any, without: Callable[[str], None]) -> None:
    without("one")
    statuses = [asked(on("client"), "/api/v1/query?query=1")[0] for _ in range(20)]
    assert set(statuses) == {"200"}, "also while the other is not yet known to be down"
    (found,) = look({"hash": "#overview?range=1h"})
    assert found["trouble"] == ""
    assert "from Prometheus two" in found["freshness"]
    assert found["hosts"].keys() == {"one", "two", "client", "stranger"}
    assert found["failed"] == []


def test_without_any_the_page_says_so(on: Any, without: Callable[[str], None]) -> None:
    without("one")
    without("two")
    until("both are known to be down", lambda: asked(on("client"), "/api/v1/query?query=1")[0] == "503", 20)
    (found,) = look({"hash": "#overview?range=1h", "file": "no-prometheus.png", "viewport": True})
    assert "No Prometheus of this site answers" in found["trouble"]
    assert (found["level"], found["verdict"][:26]) == ("warning", "The state is not known now")


# --- Runs -------------------------------------------------------------------------------------------------------------------------------------------


def test_a_group_that_is_gone_takes_its_dashboard_along(on: Any) -> None:
    def roles() -> set[str]:
        return {one["role"] for one in json.loads(asked(on("client"), "/site.json")[1])["dashboards"]}

    assert {"baseline", "prometheus", "nginx"} <= roles()
    done = rerun("--limit=one", "--tags=status_page", status_page_groups=["prometheus", "baseline"])
    assert done.returncode == 0, done.stdout
    until("it is served", lambda: roles() == {"baseline", "prometheus"}, 10)
    done = rerun("--limit=one", "--tags=status_page")
    assert done.returncode == 0, done.stdout
    until("it is served", lambda: "nginx" in roles(), 10)


def test_a_rerun_changes_nothing() -> None:
    done = rerun()
    assert set(changed(done).values()) == {0}, done.stdout


def test_secrets_stay_on_the_controller() -> None:
    secret = SCENARIO / "inventory/.state/secrets/status_page/operator"
    assert secret.stat().st_mode & 0o077 == 0
