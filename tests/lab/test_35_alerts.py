"""Faults that operators meet, all at the same time, each on a host that the platform can do without: their alerts are there, and go when they do.

An alert is there when its condition holds in Prometheus (pending or firing). For how long it has to hold before anybody is told, the rules' own tests
prove (``roles/*/monitoring/rules_test.yml``), which need no hours for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.lab.conftest import CA, CLUSTER, api_key, execute, wait_until
from tests.lab.watched import query

Entry = Callable[[str], tuple[str, str]]
SEEN_S, GONE_S = 180, 240
"""Seconds: programs that print metrics run once a minute, and what they print is scraped and judged every 15 s."""


@dataclass(frozen=True)
class Drill:
    """A fault.

    Attributes:
        host: Where it is made.
        make: Shell command that makes it.
        mend: Shell command that takes it back.
        alerts: Alerts that must be there while it lasts, at the host if they name one.
        remembered: Whether they look back, and so stay for a while.
    """

    host: str
    make: str
    mend: str
    alerts: tuple[str, ...]
    remembered: bool = False


def unit(host: str, name: str, *alerts: str) -> Drill:
    """Stop a unit."""
    return Drill(host, f"systemctl stop {name}", f"systemctl start {name}", alerts)


FAILED = "systemd-run --quiet --unit=drill-failed --property=Type=oneshot false"
FLAPS = "systemd-run --quiet --unit=drill-flaps --property=Restart=always --property=RestartSec=2 --property=StartLimitIntervalSec=0 sleep 3"
DRILLS = [
    unit("hq-gw2", "nginx", "NginxDown", "KeepalivedNoneToTakeOver"),
    unit("hq-gw2", f"wg-quick@{CLUSTER['vpn']['interface']}", "WireguardDown"),
    unit("hq-gw2", "prometheus-alertmanager", "TargetDown"),
    unit("hq-app1", "pgpool2", "PgpoolDown"),
    unit("hq-app2", "dify_web", "DifyServiceDown"),
    unit("hq-db3", "swift-proxy", "ObjectStorageMemberDown"),
    unit("hq-gpu1", "vllm-watchdog", "VllmWatchdogDown"),
    Drill("hq-app2", f"{FAILED} || true", "systemctl reset-failed drill-failed", ("HostUnitFailed",)),
    Drill("hq-app2", FLAPS, "systemctl stop drill-flaps", ("HostUnitFlaps",), remembered=True),
    Drill("hq-app2", "chmod o+r /etc/sovereign/pki/host.key", "chmod o-r /etc/sovereign/pki/host.key", ("HostSecretExposed",)),
    Drill("hq-app2", "nft delete table inet sovereign", "systemctl restart sovereign-firewall", ("FirewallGone",)),
    Drill(
        "hq-gw1",
        "cp -p /etc/prometheus/prometheus.yml /root/kept.yml && echo nonsense >> /etc/prometheus/prometheus.yml && kill -HUP $(pidof prometheus)",
        "cp -p /root/kept.yml /etc/prometheus/prometheus.yml && rm /root/kept.yml && kill -HUP $(pidof prometheus)",
        ("PrometheusConfigurationRefused",),
    ),
]


def there(drill: Drill, alert: str) -> bool:
    """Tell whether a drill's alert is there."""
    found = query(f'ALERTS{{alertname="{alert}"}}')
    return any(one.get("instance", drill.host) == drill.host for one in found)


def test_faults_are_told_while_they_last_and_no_longer(curl: Callable[..., tuple[int, str]], entry: Entry) -> None:
    made: list[Drill] = []
    url, address = entry("hq-gw1")
    try:
        for drill in DRILLS:
            made.append(drill)
            execute(drill.host, "sh", "-c", drill.make)
        # Not granted to this client, and restricted.
        resolved = f"{url.removeprefix('https://')}:443:{address}"
        key = ("--header", f"Authorization: Bearer {api_key('branch-desk')}", "--header", "Content-Type: application/json")
        body = '{"model": "risk-scoring", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}'
        status, _ = curl("hq-client1", "--cacert", CA, "--resolve", resolved, *key, "--data-binary", body, f"{url}/v1/chat/completions")
        assert status in (403, 404)
        missing: list[Any] = []

        def all_there() -> bool:
            missing[:] = [(drill.host, alert) for drill in DRILLS for alert in drill.alerts if (drill, alert) not in seen and not there(drill, alert)]
            seen.update((drill, alert) for drill in DRILLS for alert in drill.alerts if (drill.host, alert) not in missing)
            return not missing and bool(query('ALERTS{alertname="ModelGatewayRestrictedModelAsked"}'))

        seen: set[tuple[Drill, str]] = set()
        try:
            print(f"all there after {wait_until(all_there, 'every fault has its alert', SEEN_S, 3):.0f} s")
        finally:
            print(f"missing: {missing}")
    finally:
        for drill in made:
            execute(drill.host, "sh", "-c", drill.mend, check=False)
    left: list[Any] = []

    def all_gone() -> bool:
        left[:] = [(drill.host, alert) for drill in DRILLS if not drill.remembered for alert in drill.alerts if there(drill, alert)]
        return not left

    try:
        print(f"all gone after {wait_until(all_gone, 'every alert goes with its fault', GONE_S, 3):.0f} s")
    finally:
        print(f"left: {left}")
