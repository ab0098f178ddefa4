"""Which containers a host runs, and that the role's own defaults can be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.filter.capacity_plan import capacity_plan
from ansible_collections.sovereign.dify.plugins.module_utils.dify_containers import containers, declared
from ansible_collections.sovereign.dify.plugins.module_utils.dify_release import RELEASES
from ansible_collections.sovereign.dify.plugins.module_utils.dify_settings import SettingsError, WorkerPool, check_pools, parse

from tests.unit.test_dify_settings import declared as site_settings

DEFAULTS = yaml.safe_load((Path(__file__).resolve().parents[2] / "roles/dify/defaults/main.yml").read_text(encoding="utf-8"))
IMAGES = {name: f"registry/{name}@sha256:{'a' * 64}" for name in ("api", "web", "plugin_daemon", "sandbox", "ssrf_proxy")}
ALL = ["api", "websocket", "worker", "beat", "plugin_daemon", "web"]


def host(*services: str, **changes: Any) -> dict[str, Any]:
    given = {
        "name": "hq-app1",
        "services": list(services or ALL),
        "api": {"processes": 2, "connections": 200, "pool_size": 40, "max_overflow": 20, "memory_mb": 1024},
        "websocket": {"connections": 1000},
        "plugin_daemon": {"pool_size": 10, "max_overflow": 20},
        "pools": DEFAULTS["dify_worker_pools"],
    }
    return {**given, **changes}


def listed(*services: str, settings: dict[str, Any] | None = None, **changes: Any) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in containers(site_settings(), host(*services, **changes), IMAGES, settings or {})}


def test_a_host_that_runs_everything() -> None:
    found = listed()
    pools = [f"dify_worker_{pool['name']}_{number}" for pool in DEFAULTS["dify_worker_pools"] for number in range(1, pool["processes"] + 1)]
    assert list(found) == [
        *("dify_api_1", "dify_api_2", "dify_websocket", *pools, "dify_beat", "dify_web", "dify_plugin_daemon"),
        *("dify_ssrf_proxy", "dify_sandbox", "migration"),
    ]
    assert [name for name, item in found.items() if item["supervised"]] == ["dify_beat", "dify_plugin_daemon"]


def test_a_host_runs_what_it_is_named_for_and_always_a_sandbox_with_its_proxy() -> None:
    assert list(listed("web")) == ["dify_web", "dify_ssrf_proxy", "dify_sandbox", "migration"]


def test_processes_of_the_api_have_ports_of_their_own() -> None:
    found = listed()
    assert [found[f"dify_api_{number}"]["port"] for number in (1, 2)] == [5101, 5102]
    assert found["dify_api_2"]["environment"]["DIFY_PORT"] == "5102"
    assert len({item["port"] for item in found.values() if item["port"]}) == len([item for item in found.values() if item["port"]])


def test_a_worker_runs_its_own_command_under_a_name_of_its_own() -> None:
    found = listed()
    workers = {name: item for name, item in found.items() if item["service"] == "worker"}
    assert len({item["worker"] for item in workers.values()}) == len(workers)
    assert found["dify_worker_workflow_1"]["command"][-1] == "task.default_queue_type=quorum"
    assert "--hostname=workflow_1@hq-app1" in found["dify_worker_workflow_1"]["command"]
    assert found["dify_api_1"]["command"] == ()
    # Not the image's own, which would write its schedule beside its code.
    assert found["dify_beat"]["command"][-1] == "--schedule=/tmp/celerybeat-schedule"


def test_settings_are_for_one_service_or_common_to_all_of_the_image() -> None:
    found = listed(settings={"common": {"LOG_LEVEL": "DEBUG"}, "worker": {"LOG_LEVEL": "WARNING"}, "sandbox": {"MAX_WORKERS": 8}})
    assert found["dify_api_1"]["environment"]["LOG_LEVEL"] == "DEBUG"
    assert found["dify_worker_default_1"]["environment"]["LOG_LEVEL"] == "WARNING"
    assert "--loglevel=WARNING" in found["dify_worker_default_1"]["command"]
    assert found["dify_sandbox"]["environment"]["MAX_WORKERS"] == "8"
    assert "LOG_LEVEL" not in found["dify_web"]["environment"]


def test_all_faults_are_told_at_once_and_each_once() -> None:
    pools = [pool for pool in DEFAULTS["dify_worker_pools"] if pool["name"] != "priority"]
    with pytest.raises(SettingsError) as error:
        listed(settings={"comon": {}, "api": {"LOG_LEVLE": "INFO"}}, pools=pools, api={"processes": 0})
    assert error.value.faults == (
        "dify_settings: comon: no service; known are common, api, websocket, worker, beat, migration, web, plugin_daemon, sandbox.",
        "nobody consumes priority_dataset, priority_pipeline; put each into a pool, or its tasks wait for ever.",
        "dify_api.processes: a host runs from 1 to 64.",
    )
    with pytest.raises(SettingsError) as error:
        listed(settings={"common": {"LOG_LEVLE": "INFO"}})
    assert len(error.value.faults) == len(set(error.value.faults)) >= 1
    assert "did you mean LOG_LEVEL?" in error.value.faults[0]


@pytest.mark.parametrize("release", RELEASES)
def test_the_roles_own_pools_consume_every_queue_of_a_release_once(release: str) -> None:
    pools = [parse(WorkerPool, pool) for pool in DEFAULTS["dify_worker_pools"]]
    assert check_pools(pools, RELEASES[release].queues) == []
    of = {queue: pool for pool in pools for queue in pool.queues}
    assert of["workflow_based_app_execution"].queues == ("workflow_based_app_execution",)
    assert all(queue.startswith("priority_") for queue in of["priority_dataset"].queues)
    assert of["priority_pipeline"] is of["priority_dataset"]
    assert of["dataset"] not in (of["priority_dataset"], of["mail"])


def members(*names: str) -> dict[str, list[dict[str, str]]]:
    hosts = [{"name": name} for name in names]
    return dict.fromkeys(("api", "websocket", "worker", "beat", "plugin_daemon"), hosts)


def plan(given: dict[str, Any], max_connections: int, *names: str) -> dict[str, Any]:
    hosts = [{"name": name, "cores": 8, "memory_mb": 32768, "runs": ["api", "worker"]} for name in names]
    wanted = {"streams": 10, "answer_seconds": 10, "answer_chunks": 300}
    return capacity_plan(hosts, wanted, declared(given, members(*names), max_connections))


def defaults() -> dict[str, Any]:
    return host(**{name: DEFAULTS[f"dify_{name}"] for name in ("api", "websocket", "plugin_daemon")})


def test_two_hosts_with_the_roles_defaults_fit_into_patronis() -> None:
    found = plan(defaults(), DEFAULTS["dify_max_connections"], "a", "b")
    assert found["supports"]["streams"] == 16, found


def test_a_third_host_needs_a_larger_postgresql_and_is_told_so() -> None:
    with pytest.raises(AnsibleFilterError, match=r"PostgreSQL admits 450, and may be asked for api 3 x 30 .* set max_connections to \d+ or more"):
        plan(defaults(), DEFAULTS["dify_max_connections"], "a", "b", "c")


def test_upstreams_stock_settings_exceed_upstreams_stock_postgresql() -> None:
    stock = {"pool_size": 30, "max_overflow": 10}
    pool = {"name": "all", "queues": ["mail"], "concurrency": 4, **stock}
    given = host(api={"processes": 1, "connections": 10, **stock}, plugin_daemon={"pool_size": 30, "max_overflow": 0}, pools=[pool])
    with pytest.raises(AnsibleFilterError, match=r"PostgreSQL admits 100, and may be asked for api 40 .* workers all 40 .* plugin_daemon 30"):
        plan(given, 100, "a")
