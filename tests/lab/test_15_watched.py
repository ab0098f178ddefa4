"""A site that is well, seen by its own monitoring: everything is asked, nothing is told, and what that costs."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.__main__ import RECEIVER
from tests.lab.conftest import execute, python, wait_until
from tests.lab.watched import MEMBERS, WATCHED, api, firing, query, told

UNITS = {
    "metrics": r"/(prometheus[\w-]*|exporters|alert_relay|mtail|status_page)\.service",
    "logs": r"/log_(shipper|store|store_gate|alerts)\.service",
}
PROGRAMS_S = 60
"""Seconds between two runs of the programs that print metrics."""
MOST_MEMORY, MOST_CORES = 1.5e9, 0.25
"""Bytes and processor cores that all of it may take on all hosts together. A core that others share does less in its time."""
BROKEN_BY_NATURE = {
    "HostOverloaded": "hosts share one machine, which makes and tests all of them",
    "HostMemoryShort": "likewise: whoever waits for memory waits for that of all",
    "ModelGatewayRestrictedModelAsked": "the smoke test asks for a model that its client may not have",
}
"""Alerts that fire in the lab, and what of it is not as on a machine."""
LOOK_BACK = {
    *(
        "DifyLeaseMoves",
        "DifyUnitFlaps",
        "EtcdLeaderChanges",
        "HostOutOfMemory",
        "HostUnitFlaps",
        "KeepalivedMoved",
        "ModelGatewayRestrictedModelProbed",
    ),
    *("ModelGatewayStranger", "NginxErrorBudgetBurns", "NginxErrorBudgetBurnsFast", "PostgresqlLeaderChanged", "VllmInstanceRestarts"),
}
"""Alerts that tell of what was. Where these tests are repeated after hosts were struck, they say so rightly."""


@pytest.mark.parametrize("member", MEMBERS)
def test_everything_that_hosts_offer_is_scraped(member: str) -> None:
    def missing() -> list[str]:
        targets = api("targets?state=active", member)["activeTargets"]
        assert {target["labels"]["instance"] for target in targets} == set(WATCHED)
        return [f"{target['labels']['instance']}: {target['scrapePool']}: {target['lastError']}" for target in targets if target["health"] != "up"]

    try:
        wait_until(lambda: not missing(), "all targets are up", 120, 2)
    finally:
        print("\n".join(missing()))
    offered = {(one["instance"], one["role"]): one["value"] for one in query("max by (instance, role) (sovereign_endpoints)", member)}
    found = {(one["instance"], one["role"]): one["value"] for one in query('count by (instance, role) (up{job!="gate"})', member)}
    assert found == {key: value for key, value in offered.items() if value}


def test_nothing_is_told_of_a_site_that_is_well() -> None:
    struck = any(alert["labels"]["alertname"] == "HostDown" for entry in told() for alert in entry["body"]["alerts"])
    allowed = {*BROKEN_BY_NATURE, *(LOOK_BACK if struck else ())}

    def wrong() -> set[tuple[str, str]]:
        return {alert for member in MEMBERS for alert in firing(member) if alert[0] not in allowed}

    try:
        # What was so while the site was set up is over in time.
        wait_until(lambda: not wrong(), "no alert fires", 240, 3)
    finally:
        print(query('ALERTS{alertstate="firing"}'))
    failing = [rule for group in api("rules")["groups"] for rule in group["rules"] if rule["health"] == "err"]
    assert not failing


def test_signs_of_life_reach_the_receiver() -> None:
    wait_until(lambda: any(entry["path"] == "/watchdog" for entry in told()), "a sign of life", 90, 2)


# Runs inside a host: what the processes of units take, and what one run of the programs that print metrics does.
COST = """
import json, os, re, resource, subprocess, sys
from pathlib import Path

def of(pid, units):
    try:
        group = Path(f"/proc/{pid}/cgroup").read_text()
        if not re.search(units, group):
            return 0, 0.0
        anonymous = re.search(r"^RssAnon:\\s+(\\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(anonymous[1]) * 1024 if anonymous else 0, sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0.0

found = {kind: [of(pid, units) for pid in os.listdir("/proc") if pid.isdigit()] for kind, units in UNITS.items()}
once = 0.0
if PROGRAMS:
    unit = Path("/etc/systemd/system/sovereign_textfiles.service").read_text()
    subprocess.run(re.search(r"^ExecStart=(.+)$", unit, re.M)[1].split(), check=False, capture_output=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    once = used.ru_utime + used.ru_stime
print(json.dumps({"once": once, **{kind: [sum(parts) for parts in zip(*spent)] for kind, spent in found.items()}}))
"""


def test_it_costs_little() -> None:
    """Memory that no process can do without, and processor time, of all that watches, on all hosts together."""

    def spent(programs: bool = False) -> tuple[dict[str, tuple[float, float]], float]:
        given = f"UNITS, PROGRAMS = {UNITS!r}, {programs}\n{COST}"
        with ThreadPoolExecutor(len(WATCHED)) as pool:
            found = list(pool.map(lambda host: python(host, given), WATCHED))
        memory, processor = ({kind: sum(one[kind][position] for one in found) for kind in UNITS} for position in (0, 1))
        return {kind: (memory[kind], processor[kind]) for kind in UNITS}, sum(one["once"] for one in found)

    _, once = spent(programs=True)
    began, (before, _) = time.monotonic(), spent()
    time.sleep(60)
    after, _ = spent()
    seconds = time.monotonic() - began
    cores = {kind: (after[kind][1] - before[kind][1]) / seconds for kind in UNITS}
    cores["metrics"] += once / PROGRAMS_S
    kept = query("sum(prometheus_tsdb_head_series)")[0]["value"]
    for kind, (memory, _) in after.items():
        print(f"{kind}: {memory / 1e6:.0f} MB, {cores[kind] * 100:.1f} % of a core")
        assert memory > 0
        assert cores[kind] > 0
    print(f"of metrics: {once / PROGRAMS_S * 100:.1f} programs; {kept:.0f} series in all members")
    assert sum(memory for memory, _ in after.values()) <= MOST_MEMORY
    assert sum(cores.values()) <= MOST_CORES


def test_a_service_that_stops_is_told_once_within_a_minute() -> None:
    def entries() -> list[dict[str, str]]:
        found = []
        for entry in told():
            for alert in entry["body"]["alerts"] if entry["path"] == "/pager" else []:
                if (alert["labels"]["alertname"], alert["labels"].get("instance")) == ("NginxDown", "hq-gw2"):
                    found.append({"status": alert["status"], "time": str(entry["time"])})
        return found

    before, began = len(entries()), time.time()
    execute("hq-gw2", "systemctl", "stop", "nginx")
    try:
        wait_until(lambda: len(entries()) > before, f"{RECEIVER['host']} is told", 90, 1)
        took = float(entries()[before]["time"]) - began
        print(f"told after {took:.0f} s")
        assert took <= 60
        time.sleep(20)
        assert [entry["status"] for entry in entries()[before:]] == ["firing"], json.dumps(entries())
    finally:
        execute("hq-gw2", "systemctl", "start", "nginx")
    wait_until(lambda: [entry["status"] for entry in entries()[before:]] == ["firing", "resolved"], "it is told that it is back", 120, 2)
