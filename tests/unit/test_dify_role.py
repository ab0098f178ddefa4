"""The role's own variables and templates, rendered by Ansible's engine from a contract: what would be written on a host."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.unit.inventory.cases import HERE
from tests.unit.role_variables import role_variables, trusted

ROLE = Path(__file__).resolve().parents[2] / "roles/dify"
TEXT = (HERE / "good/dify/cluster.yml").read_text(encoding="utf-8")


class Rendered:
    """A host's variables, and the files that the role writes there."""

    def __init__(self, state: Path, host: str, **given: Any) -> None:
        """Take a host of the example, with its contract and what is given on top."""
        variables = role_variables("dify", TEXT, host, str(state / "cluster.yml")) | {
            "ansible_managed": "managed",
            "ansible_check_mode": False,
            "ansible_facts": {"ansible_local": {}},
            "ansible_search_path": [str(ROLE)],
            "role_path": str(ROLE),
            **trusted(given),
        }
        loader = DataLoader()
        loader.set_basedir(str(ROLE))
        self.variables = variables
        self.templar = Templar(loader=loader, variables=variables)
        self.files = {item["dest"]: item for item in self.value("{{ __dify_migration_files + __dify_files }}")}

    def value(self, text: str, **more: Any) -> Any:
        """Template an expression."""
        if not more:
            return self.templar.template(trust_as_template(text))
        return self.templar.copy_with_new_env(available_variables={**self.variables, **more}).template(trust_as_template(text))

    def text(self, dest: str) -> str:
        """Render one of the files."""
        item = self.files[dest]
        if "src" not in item:
            return str(item["content"])
        source = (ROLE / "templates" / item["src"]).read_text(encoding="utf-8")
        rendered = self.templar.copy_with_new_env(
            available_variables={**self.variables, **item.get("vars", {})}, searchpath=[str(ROLE / "templates")]
        )
        return str(rendered.template(trust_as_template(source), escape_backslashes=False))

    def environment(self, name: str) -> dict[str, str]:
        """Read an environment as podman does: a line for each, and no quotes."""
        lines = [line for line in self.text(f"/etc/dify/{name}.env").splitlines() if line and not line.startswith("#")]
        return dict(line.split("=", 1) for line in lines)

    def quadlet(self, name: str) -> configparser.ConfigParser:
        """Read a quadlet; of keys that come more than once, the last."""
        parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(self.text(f"/etc/containers/systemd/{name}.container"))
        return parser


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(tmp_path_factory.mktemp("state"), "hq-app1")


def test_secrets_are_generated_once_and_equal_on_every_host(tmp_path: Path) -> None:
    one, two = Rendered(tmp_path, "hq-app1"), Rendered(tmp_path, "hq-app2")
    assert one.environment("dify_api_1")["SECRET_KEY"] == two.environment("dify_api_1")["SECRET_KEY"]
    assert one.environment("dify_sandbox")["API_KEY"] == two.environment("dify_api_1")["CODE_EXECUTION_API_KEY"]
    assert len(one.environment("dify_api_1")["INIT_PASSWORD"]) == 30
    assert one.environment("migration")["MIGRATION_ENABLED"] == "true"


def secrets_of(host: Rendered, name: str) -> list[str]:
    return re.findall(r"^Secret=[^.]+\.(\S+),type=env,target=\1$", host.text(f"/etc/containers/systemd/{name}.container"), re.MULTILINE)


def test_every_unit_runs_a_pinned_image_that_is_never_pulled_with_its_own_environment(host: Rendered) -> None:
    units = host.value("{{ __dify_containers }}")
    assert len(units) >= 11
    for unit in units:
        container = host.quadlet(unit["name"])["Container"]
        assert "@sha256:" in container["Image"]
        assert container["Pull"] == "never"
        assert container["LogDriver"] == "journald"
        assert container["DropCapability"] == "all"
        assert int(host.quadlet(unit["name"])["Service"]["MemoryMax"].removesuffix("M")) >= 256
        if unit["environment"]:
            kept = f"/etc/dify/{unit['name']}.env"
            assert container["EnvironmentFile"] == (
                f"/run/dify/{unit['name']}/environment" if unit["environment"] and secrets_of(host, unit["name"]) else kept
            )
            assert host.files[kept]["mode"] == "0600"


def test_podman_is_given_each_secret_by_its_name_and_no_environment_with_it(host: Rendered) -> None:
    secret = host.value(
        "{{ dify_secrets.values() | list + [dify_postgresql.password, dify_redis.password, dify_rabbitmq.password, dify_s3.secret_key] }}"
    )
    for unit in host.value("{{ __dify_containers }}"):
        text = host.text(f"/etc/containers/systemd/{unit['name']}.container")
        assert not any(value in text for value in secret)
        held = {name for name, value in unit["environment"].items() if any(word in value for word in secret)}
        names = secrets_of(host, unit["name"])
        assert held <= set(names) <= set(unit["environment"])
        for name in names:
            assert f"Secret={unit['name']}.{name},type=env,target={name}\n" in text
        assert f"--others /run/dify/{unit['name']}/environment {unit['name']} {' '.join(names)}\n" in text or not names
    assert {"SECRET_KEY", "DB_PASSWORD", "REDIS_PASSWORD", "CELERY_BROKER_URL", "S3_SECRET_KEY"} <= set(secrets_of(host, "dify_api_1"))
    # Each costs podman a moment at the first start: what only looks like one is none.
    assert len(secrets_of(host, "dify_api_1")) <= 16
    assert secrets_of(host, "dify_sandbox") == ["API_KEY"]
    assert secrets_of(host, "dify_web") == []
    assert secrets_of(host, "dify_ssrf_proxy") == []


def test_what_there_is_one_of_starts_with_its_lease_and_ends_with_it(host: Rendered) -> None:
    for name in ("beat", "plugin_daemon"):
        unit = host.quadlet(f"dify_{name}")
        assert unit["Unit"]["BindsTo"] == f"dify_lease@{name}.service"
        assert "Install" not in unit
        assert int(unit["Container"]["StopTimeout"]) < int(unit["Service"]["TimeoutStopSec"]) < 15
    assert host.quadlet("dify_api_1")["Install"]["WantedBy"] == "multi-user.target"
    assert host.value("{{ __dify_leases }}") == ["dify_lease@beat.service", "dify_lease@plugin_daemon.service"]
    lease = host.text("/etc/systemd/system/dify_lease@.service")
    assert "WatchdogSec=25\n" in lease
    assert "--unit dify_%i.service" in lease
    # What several units share is put in line by line.
    assert {"SystemCallArchitectures=native", "MemoryDenyWriteExecute=yes"} <= set(lease.splitlines())


def test_a_host_without_them_asks_for_no_lease(tmp_path: Path) -> None:
    members = {"api": ["hq-app1"], "websocket": [], "worker": ["hq-app1"], "beat": ["hq-app2"], "plugin_daemon": ["hq-app2"], "web": []}
    named = {
        service: [{"name": name, "fqdn": f"{name}.lab.internal", "address": "198.18.1.51"} for name in names] for service, names in members.items()
    }
    found = Rendered(tmp_path, "hq-app1", dify_members=named)
    assert found.value("{{ __dify_leases }}") == []
    assert found.value("{{ __dify_watches }}") == ["dify_workers.service", "dify_requests.service"]
    assert found.value("{{ __dify_unwanted_watches }}") == ["dify_lease@beat.service", "dify_lease@plugin_daemon.service"]
    assert "/etc/containers/systemd/dify_beat.container" not in found.files
    assert found.value("{{ __dify_migrates }}")


def test_a_busy_api_is_late_and_not_dead(host: Rendered) -> None:
    container = host.quadlet("dify_api_1")["Container"]
    assert "--max-time 60 " in container["HealthCmd"]
    assert int(container["HealthTimeout"].removesuffix("s")) > 60
    assert container["HealthOnFailure"] == "kill"
    assert "timeout check 30s" in host.text("/etc/dify/haproxy.cfg")


@pytest.mark.parametrize(
    ("settings", "longest"),
    [({}, 1260), ({"common": {"APP_MAX_EXECUTION_TIME": 3600}}, 3660), ({"api": {"WORKFLOW_MAX_EXECUTION_TIME": "600"}, "worker": {}}, 1260)],
)
def test_no_request_is_ended_that_dify_would_still_let_run(tmp_path: Path, settings: dict[str, Any], longest: int) -> None:
    found = Rendered(tmp_path, "hq-app1", dify_settings=settings)
    assert f" --socket /run/dify_proxy/admin.sock --longest {longest}\n" in found.text("/etc/systemd/system/dify_requests.service")


def test_a_worker_is_not_killed_because_its_broker_is_away(host: Rendered) -> None:
    container = host.quadlet("dify_worker_workflow_1")["Container"]
    assert "HealthCmd" not in container
    looked_after = host.text("/etc/systemd/system/dify_workers.service")
    assert "--environment /etc/dify/dify_worker_workflow_1.env dify_worker_workflow_1=workflow_1@hq-app1 dify_worker_priority_1=" in looked_after
    assert " dify_worker_default_1=default_1@hq-app1\n" in looked_after
    assert container["Entrypoint"] == "celery"
    assert container["Exec"].endswith("task.create_missing_queue_type=quorum task.default_queue_type=quorum")
    # A warm shutdown: tasks end.
    assert int(container["StopTimeout"]) >= 120


def test_the_sandbox_is_in_a_network_of_its_own_and_finds_the_proxy_there(host: Rendered) -> None:
    container = host.quadlet("dify_sandbox")["Container"]
    assert (container["Network"], container["IP"]) == ("dify_sandbox.network", "10.89.77.2")
    network = host.text("/etc/containers/systemd/dify_sandbox.network")
    assert "Internal=true" in network
    assert "Gateway=10.89.77.1" in network
    assert host.environment("dify_sandbox")["HTTPS_PROXY"] == "http://10.89.77.1:3128"
    assert host.environment("dify_api_1")["CODE_EXECUTION_ENDPOINT"] == "http://10.89.77.2:8194"


def test_the_proxy_allows_what_is_named_and_denies_the_rest(host: Rendered, tmp_path: Path) -> None:
    lines = [line for line in host.text("/etc/dify/squid.conf").splitlines() if line.startswith(("acl", "http_access"))]
    assert lines == [
        "acl asked_by_dify src 127.0.0.1/32 ::1/128 10.89.77.0/29",
        "acl endpoint_1 dstdomain -n ai.hq.lab.internal",
        "acl endpoint_1_port port 443",
        "http_access allow asked_by_dify endpoint_1 endpoint_1_port",
        "http_access deny all",
    ]
    found = Rendered(tmp_path, "hq-app1", dify_allowed_endpoints=[{"host": "10.1.0.0/16", "port": 8443}])
    assert "acl endpoint_1 dst 10.1.0.0/16" in found.text("/etc/dify/squid.conf")
    former, latter = (item.text("/etc/dify/dify_ssrf_proxy.also") for item in (host, found))
    assert former != latter, "a change of its rules restarts the proxy"


def test_the_proxy_of_a_host_serves_its_processes_and_finds_all_of_the_site(host: Rendered) -> None:
    text = host.text("/etc/dify/haproxy.cfg")
    assert "server dify_api_1 127.0.0.1:5101 check inter 5s fastinter 1s fall 3 rise 1 maxconn 7" in text
    assert "server dify_api_1 127.0.0.1:5101 track api/dify_api_1 maxconn 1" in text, "a place that only reserved tiers get"
    assert "server dify_api_1 127.0.0.1:5101 track api/dify_api_1" in text
    assert text.count("hq-app2 198.18.1.52:9441 ssl verify required") == 2
    assert text.count("hq-app2 198.18.1.52:9444 ssl verify required") == 1
    assert "hq-gw1 198.18.1.11:8443 ssl verify required" in text
    assert text.count("bind 198.18.1.51:") == text.count("ca-file /etc/sovereign/pki/ca.crt verify required alpn http/1.1") == 5
    assert "Retry-After" in text
    assert "{{" not in text
    assert "{%" not in text


def test_the_proxy_logs_each_request_as_json_with_the_id_that_it_passes_on(host: Rendered) -> None:
    text = host.text("/etc/dify/haproxy.cfg")
    [line] = re.findall(r"^ +log-format '(.*)'$", text, re.MULTILINE)
    # Texts stand in quotes, numbers do not.
    filled = re.sub(r'(?<=")(?:%(?:\[[^]]*\]|[a-z]+))(?=")', "text", line)
    said = json.loads(re.sub(r"%[A-Za-z]+", "-1", filled))
    assert {name for name, value in said.items() if value == -1} == {
        *("status", "bytes_in", "bytes_out", "request_ms", "queue_ms", "connect_ms", "first_byte_ms", "total_ms")
    }
    # What a client writes is escaped, and its query is not there.
    assert '"method":"%[var(txn.method),json(utf8ps)]","path":"%[var(txn.path),bytes(0,200),json(utf8ps)]"' in line
    declared = yaml.safe_load((ROLE / "monitoring/logs.yml").read_text(encoding="utf-8"))["sources"]["dify_proxy"]
    assert set(declared["fields"].values()) == set(said)
    # Whatever takes requests names them; the metrics are for Prometheus alone.
    places = re.split(r"^(?=(?:frontend|listen|backend) )", text, flags=re.MULTILINE)
    takes = {place.split()[1]: place for place in places if place.startswith(("frontend", "listen"))}
    assert {name for name, place in takes.items() if "http-request set-header X-Request-ID %[var(txn.id)]" not in place} == {"metrics"}
    # The first rule that may end a request comes after its name, but for checks, which are not logged.
    ending = "http-request return status 404 if of_users"
    assert takes["active_plugin_daemon"].index("set-var(txn.id)") < takes["active_plugin_daemon"].index(ending)


def test_the_supervisor_reaches_postgresql_as_dify_does(host: Rendered) -> None:
    conninfo = host.text("/etc/dify/conninfo")
    assert conninfo.startswith("host='127.0.0.1' port='5432' dbname='dify' user='dify' password='")
    assert "sslmode='verify-full' sslrootcert='/etc/sovereign/pki/ca.crt'" in conninfo
    assert "hostaddr" not in conninfo
    assert host.files["/etc/dify/conninfo"]["mode"] == "0600"


def test_the_roles_defaults_fit_the_connections_that_patroni_admits(host: Rendered) -> None:
    patroni = yaml.safe_load((ROLE.parent / "patroni/defaults/main.yml").read_text(encoding="utf-8"))
    assert host.value("{{ dify_max_connections }}") == patroni["patroni_max_connections"]
    machines = [{"name": name, "cores": 8, "memory_mb": 32768, "runs": ["api", "worker"]} for name in ("hq-app1", "hq-app2")]
    plan = "machines | sovereign.dify.capacity_plan(dify_wanted, __dify_host | sovereign.dify.dify_declared(dify_members, dify_max_connections))"
    assert host.value(f"{{{{ ({plan.replace('machines', str(machines))}).enough }}}}")


def test_faults_are_told_in_sentences(tmp_path: Path) -> None:
    found = Rendered(tmp_path, "hq-app1", dify_lease_seconds=20)
    assert "at least 45" in " ".join(found.value("{{ __dify_faults | select | list }}"))


def test_ports_are_opened_to_those_who_come_and_nobody_else(host: Rendered) -> None:
    rules = host.value("{{ __dify_firewall_rules }}")
    assert (rules[0]["chain"], rules[0]["ports"]) == ("input", [9441, 9442, 9443, 9444, 9446])
    assert rules[0]["peers"] == ["198.18.1.11", "198.18.1.51", "198.18.1.52"]
    assert all(rule["peers"] for rule in rules)
