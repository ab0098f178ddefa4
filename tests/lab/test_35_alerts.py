"""Faults that operators meet, all at the same time, each on a host that the platform can do without: their alerts are there, and go when they do.

An alert is there when its condition holds in Prometheus (pending or firing). For how long it has to hold before anybody is told, the rules' own tests
prove (``roles/*/monitoring/rules_test.yml``), which need no hours for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.lab.conftest import CA, CLUSTER, api_key, execute, wait_until
from tests.lab.platform import ASK_HAPROXY, GATEWAY_SOCKET
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
        mended_at: Where it is taken back, if that is another host.
    """

    host: str
    make: str
    mend: str
    alerts: tuple[str, ...]
    remembered: bool = False
    mended_at: str = ""


def unit(host: str, name: str, *alerts: str) -> Drill:
    """Stop a unit."""
    return Drill(host, f"systemctl stop {name}", f"systemctl start {name}", alerts)


def fails(host: str, name: str, alert: str) -> Drill:
    """Have a unit fail."""
    return Drill(host, f"systemd-run --quiet --unit={name} --property=Type=oneshot false || true", f"systemctl reset-failed {name}", (alert,))


def flaps(host: str, name: str, alert: str) -> Drill:
    """Have a unit that ends again and again."""
    properties = "--property=Restart=always --property=RestartSec=2 --property=StartLimitIntervalSec=0"
    return Drill(host, f"systemd-run --quiet --unit={name} {properties} sleep 3", f"systemctl stop {name}", (alert,), remembered=True)


def written(host: str, file: str, change: str, alert: str, after: str = "true") -> Drill:
    """Write something else into a file, by a shell command that has its path as ``$1``, and run a command after that and after it is as it was."""
    kept = f"/root/kept_{alert}"
    return Drill(host, f"cp -p {file} {kept} && set -- {file} && {change} && {after}", f"cp -p {kept} {file} && rm {kept} && {after}", (alert,))


def told_gateway(command: str) -> str:
    """Give a shell command that tells the model gateway's HAProxy something."""
    return f"python3 - {GATEWAY_SOCKET} '{command}' <<'END'{ASK_HAPROXY}END"


SERVER_STATE = "set server model_assistant/hq-gpu1 state"
LIMIT = "rabbitmqctl --quiet set_disk_free_limit"
# A message to a queue that nobody asks.
SENT = (
    'import kombu, os; there = kombu.Connection(os.environ["CELERY_BROKER_URL"]);'
    ' there.Producer().publish({}, routing_key="drill", declare=[kombu.Queue("drill")])'
)
QUEUE_GONE = "for host in $(rabbitmqctl --quiet list_vhosts --no-table-headers); do rabbitmqctl --quiet delete_queue drill --vhost $host; done; true"
DRILLS = [
    unit("hq-gw2", "nginx", "NginxDown", "KeepalivedNoneToTakeOver"),
    unit("hq-gw2", f"wg-quick@{CLUSTER['vpn']['interface']}", "WireguardDown"),
    unit("hq-gw2", "prometheus-alertmanager", "TargetDown"),
    unit("hq-app1", "pgpool2", "PgpoolDown"),
    unit("hq-app2", "dify_web", "DifyServiceDown"),
    unit("hq-db3", "swift-proxy", "ObjectStorageMemberDown"),
    unit("hq-gpu1", "vllm-watchdog", "VllmWatchdogDown"),
    unit("hq-db3", "redis-sentinel", "RedisSentinelDown"),
    unit("hq-gw1", "log_store", "TargetDown"),
    # More than wait for a store that is away for a moment; nothing of it is lost.
    Drill("hq-app2", "systemd-run --quiet --wait --property=LogRateLimitIntervalSec=0 seq 25000", "true", ("LogQueueGrows",)),
    fails("hq-app2", "drill-failed", "HostUnitFailed"),
    fails("hq-app2", "dify_drill", "DifyUnitFailed"),
    flaps("hq-app2", "drill-flaps", "HostUnitFlaps"),
    flaps("hq-app2", "dify_flaps", "DifyUnitFlaps"),
    Drill(
        "hq-app2",
        "systemd-run --quiet --collect --wait --property=MemoryMax=20M --property=MemorySwapMax=0 python3 -c 'bytes(1) * 200000000' || true",
        "true",
        ("HostOutOfMemory",),
        remembered=True,
    ),
    Drill("hq-app2", "touch /run/reboot-required", "rm -f /run/reboot-required", ("HostRestartRequired",)),
    Drill("hq-db1", "patronictl -c /etc/patroni/config.yml pause", "patronictl -c /etc/patroni/config.yml resume", ("PostgresqlPaused",)),
    Drill(
        "hq-db3",
        "rabbitmqctl --quiet eval 'rabbit_disk_monitor:get_disk_free_limit().' > /root/limit"
        f" && {LIMIT} $(($(df --output=avail -B1 /var/lib/rabbitmq | tail -1) * 7 / 10))",
        f"{LIMIT} $(cat /root/limit)",
        ("RabbitmqDiskLow",),
    ),
    Drill(
        "hq-app1",
        f"podman exec dify_api_1 python3 -c '{SENT}'",
        QUEUE_GONE,
        ("RabbitmqQueueWithoutConsumers",),
        mended_at="hq-db1",
    ),
    Drill("hq-gw1", told_gateway(f"{SERVER_STATE} drain"), told_gateway(f"{SERVER_STATE} ready"), ("ModelGatewayServerDrained",)),
    written("hq-gw1", "/etc/nginx/nginx.conf", "sed -i 's/return 200 \"/return 200 \"drill/' $1", "NginxConfigurationNotLoaded"),
    written(
        "hq-gw1", "/etc/haproxy/haproxy.cfg", "sed -i 's/CONFIGURATION_DIGEST /CONFIGURATION_DIGEST drill/' $1", "ModelGatewayConfigurationNotLoaded"
    ),
    Drill("hq-db3", "nft add chain inet sovereign drill", "systemctl restart sovereign-firewall", ("FirewallNotAsConfirmed",)),
    Drill("hq-app2", "chmod o+r /etc/sovereign/pki/host.key", "chmod o-r /etc/sovereign/pki/host.key", ("HostSecretExposed",)),
    Drill("hq-app2", "nft delete table inet sovereign", "systemctl restart sovereign-firewall", ("FirewallGone",)),
    written(
        "hq-gw1", "/etc/prometheus/prometheus.yml", "echo nonsense >> $1", "PrometheusConfigurationRefused", after="kill -HUP $(pidof prometheus)"
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
            execute(drill.mended_at or drill.host, "sh", "-c", drill.mend, check=False)
    left: list[Any] = []

    def all_gone() -> bool:
        left[:] = [(drill.host, alert) for drill in DRILLS if not drill.remembered for alert in drill.alerts if there(drill, alert)]
        return not left

    try:
        print(f"all gone after {wait_until(all_gone, 'every alert goes with its fault', GONE_S, 3):.0f} s")
    finally:
        print(f"left: {left}")
