"""Settings of Dify: each trap that is known is closed, and a test fails without the cure."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.figures import RETRIEVAL_CONNECTIONS
from ansible_collections.sovereign.dify.plugins.module_utils.dify_release import RELEASES
from ansible_collections.sovereign.dify.plugins.module_utils.dify_settings import (
    IMAGES,
    PUBLIC_DEFAULTS,
    Process,
    Secrets,
    SettingsError,
    Site,
    WorkerPool,
    check_pools,
    environment,
    parse,
    worker_command,
)

QUEUES = RELEASES["1.16.0"].queues
PROCESS = Process(port=5101, connections=200, pool_size=40, max_overflow=20)


def declared(**changes: Any) -> dict[str, Any]:
    """A site as the role hands it over."""
    database = {"host": "127.0.0.1", "port": 5432, "user": "dify", "password": "p" * 40, "database": "dify"}
    site: dict[str, Any] = {
        "release": "1.16.0",
        "public_url": "https://ai.hq.bank.example",
        "internal_url": "http://127.0.0.1:5001",
        "plugin_daemon_url": "http://127.0.0.1:5003",
        "sandbox_url": "http://10.89.77.2:8194",
        "proxy_url": "http://127.0.0.1:3128",
        "sandbox_proxy_url": "http://10.89.77.1:3128",
        "secrets": {
            "secret_key": "a" * 43,
            "plugin_daemon_key": "b" * 43,
            "inner_api_key": "c" * 43,
            "sandbox_key": "d" * 43,
            "init_password": "e" * 30,
        },
        "postgresql": database,
        "plugin_postgresql": {**database, "user": "dify_plugin", "database": "dify_plugin", "password": "q" * 40},
        "redis": {"host": "127.0.0.1", "port": 6379, "user": "dify", "password": "r/@" * 15},
        "rabbitmq": {"host": "127.0.0.1", "port": 5672, "user": "dify", "password": "s/@" * 15, "vhost": "dify"},
        "s3": {
            "endpoint": "http://127.0.0.1:9000",
            "region": "us-east-1",
            "addressing": "path",
            "access_key": "dify",
            "secret_key": "t" * 40,
            "bucket": "dify",
            "plugin_bucket": "dify-plugins",
        },
    }
    return {**site, **changes}


def site(**changes: Any) -> Site:
    return parse(Site, declared(**changes))


def of(service: str, overrides: dict[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    return environment(service, site(**changes), PROCESS, overrides)


def refused(service: str, overrides: dict[str, Any] | None = None, **changes: Any) -> str:
    with pytest.raises(SettingsError) as error:
        of(service, overrides, **changes)
    return str(error.value)


API_IMAGE = sorted(service for service, image in IMAGES.items() if image == "api")


@pytest.mark.parametrize("service", sorted(IMAGES))
def test_every_name_that_is_rendered_is_one_that_the_release_knows(service: str) -> None:
    assert set(of(service)) <= RELEASES["1.16.0"].names[IMAGES[service]]


def test_a_misspelt_setting_is_refused_with_the_one_that_was_meant() -> None:
    said = refused("api", {"SQLALCHEMY_POOL_RECYCEL": 600, "WORKFLOW_MAX_STEPS_OF_ALL_KINDS": 1})
    assert "api: SQLALCHEMY_POOL_RECYCEL: unknown setting of Dify 1.16.0; did you mean SQLALCHEMY_POOL_RECYCLE?" in said
    assert "WORKFLOW_MAX_STEPS_OF_ALL_KINDS: unknown setting of Dify 1.16.0." in said
    assert of("api", {"SQLALCHEMY_POOL_RECYCLE": 600})["SQLALCHEMY_POOL_RECYCLE"] == "600"


def test_what_one_service_knows_another_need_not_know() -> None:
    assert of("plugin_daemon", {"DISPLAY_CLUSTER_LOG": True})["DISPLAY_CLUSTER_LOG"] == "true"
    assert "unknown setting" in refused("api", {"DISPLAY_CLUSTER_LOG": True})


def test_what_follows_from_the_site_cannot_be_overridden() -> None:
    for name in ("SECRET_KEY", "DB_HOST", "EVENT_BUS_REDIS_URL", "MIGRATION_ENABLED", "MODE", "SQLALCHEMY_POOL_SIZE", "FILES_URL", "CELERY_BACKEND"):
        assert f"api: {name}: it follows from the site" in refused("api", {name: "other"})


def test_secrets_are_the_same_on_both_sides() -> None:
    for service in API_IMAGE:
        api = of(service)
        assert api["SECRET_KEY"] == "a" * 43
        assert api["PLUGIN_DAEMON_KEY"] == of("plugin_daemon")["SERVER_KEY"]
        assert api["INNER_API_KEY_FOR_PLUGIN"] == of("plugin_daemon")["DIFY_INNER_API_KEY"]
        assert api["CODE_EXECUTION_API_KEY"] == of("sandbox")["API_KEY"]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Secrets)])
def test_no_secret_is_empty_short_or_known(name: str) -> None:
    secrets = declared()["secrets"]
    assert f"secrets.{name}: is empty" in refused("api", secrets={**secrets, name: ""})
    for public in PUBLIC_DEFAULTS:
        assert "known to everybody" in refused("api", secrets={**secrets, name: public})
    if name != "init_password":
        assert "at least 32 characters" in refused("api", secrets={**secrets, name: "x" * 31})


def test_an_initial_password_is_one_that_dify_takes() -> None:
    assert "at most 30 characters" in refused("api", secrets={**declared()["secrets"], "init_password": "x" * 31})


def test_no_two_secrets_are_the_same() -> None:
    assert "two of them are equal" in refused("api", secrets={**declared()["secrets"], "sandbox_key": "a" * 43})


@pytest.mark.parametrize("section", ["postgresql", "redis", "rabbitmq"])
def test_no_password_of_a_service_is_the_public_one(section: str) -> None:
    assert "known to everybody" in refused("api", **{section: {**declared()[section], "password": "difyai123456"}})


def test_an_override_cannot_bring_a_public_secret_back() -> None:
    assert "INNER_API_KEY: the secret that upstream ships" in refused("api", {"INNER_API_KEY": "plugin-api-key"})


@pytest.mark.parametrize("service", API_IMAGE)
def test_the_event_bus_has_an_address_of_its_own_and_sentinel_stays_off(service: str) -> None:
    found = of(service)
    bus = urlsplit(found["EVENT_BUS_REDIS_URL"])
    assert (bus.scheme, bus.hostname, bus.port, bus.path, bus.username) == ("redis", "127.0.0.1", 6379, "/0", "dify")
    assert bus.password == "r%2F%40" * 15
    assert found["REDIS_USE_SENTINEL"] == "false"
    assert found["EVENT_BUS_REDIS_CHANNEL_TYPE"] == "streams"
    assert "it is another name of EVENT_BUS_REDIS_URL" in refused(service, {"PUBSUB_REDIS_URL": "redis://elsewhere"})


@pytest.mark.parametrize("service", API_IMAGE)
def test_the_broker_is_rabbitmq_and_the_result_backend_says_so(service: str) -> None:
    found = of(service)
    assert found["CELERY_BROKER_URL"] == "amqp://dify:" + "s%2F%40" * 15 + "@127.0.0.1:5672/dify"
    assert found["CELERY_BACKEND"] == "rabbitmq"
    assert found["ENABLE_DATASETS_QUEUE_MONITOR"] == "false"
    assert "must be false: it reads queues from Redis" in refused(service, {"ENABLE_DATASETS_QUEUE_MONITOR": True})


def test_a_virtual_host_with_a_slash_is_written_as_one_part_of_the_address() -> None:
    assert of("api", rabbitmq={**declared()["rabbitmq"], "vhost": "/"})["CELERY_BROKER_URL"].endswith(":5672/%2F")


@pytest.mark.parametrize("service", API_IMAGE)
def test_a_fail_over_costs_no_failed_request(service: str) -> None:
    assert of(service)["SQLALCHEMY_POOL_PRE_PING"] == "true"
    assert "each fail-over of PostgreSQL" in refused(service, {"SQLALCHEMY_POOL_PRE_PING": False})


@pytest.mark.parametrize("service", [service for service in API_IMAGE if service != "migration"])
def test_nobody_migrates_by_the_way(service: str) -> None:
    assert of(service)["MIGRATION_ENABLED"] == "false"


def test_the_migration_migrates_and_is_nothing_else() -> None:
    assert (of("migration")["MODE"], of("migration")["MIGRATION_ENABLED"]) == ("migration", "true")


def test_postgresql_is_verified_by_every_client_of_the_image_also_by_pgvectors_pool() -> None:
    found = of("api")
    assert (found["PGSSLMODE"], found["PGSSLROOTCERT"]) == ("verify-full", "/etc/sovereign/pki/ca.crt")
    assert (found["PGVECTOR_HOST"], found["PGVECTOR_PORT"]) == ("127.0.0.1", "5432")
    assert "PGHOSTADDR" not in found
    assert found["DB_TYPE"] == "postgresql"


@pytest.mark.parametrize("service", API_IMAGE)
def test_a_search_has_the_connections_to_pgvector_that_the_plan_counts(service: str) -> None:
    found = of(service)
    assert int(found["PGVECTOR_MIN_CONNECTION"]) * int(found["RETRIEVAL_SERVICE_EXECUTORS"]) == RETRIEVAL_CONNECTIONS
    for name in ("PGVECTOR_MIN_CONNECTION", "RETRIEVAL_SERVICE_EXECUTORS"):
        assert name in refused(service, {name: 8})


def test_a_postgresql_of_others_is_reached_through_the_proxy_and_verified_by_its_own_name() -> None:
    database = {**declared()["postgresql"], "host": "pg.rds.example", "address": "127.0.0.1", "authority": "system"}
    found = of("api", postgresql=database, plugin_postgresql=database)
    assert (found["DB_HOST"], found["PGHOSTADDR"], found["PGSSLROOTCERT"]) == ("pg.rds.example", "127.0.0.1", "system")
    # The daemon knows no address beside the name.
    assert of("plugin_daemon", postgresql=database, plugin_postgresql=database)["DB_HOST"] == "127.0.0.1"


def test_extras_of_the_database_are_refused_as_they_mean_two_things() -> None:
    for service in API_IMAGE:
        assert "means one thing to the api" in refused(service, {"DB_EXTRAS": "sslmode=require"})
    assert "DB_EXTRAS" not in of("plugin_daemon")


def test_the_plugin_daemon_has_a_database_of_its_own_and_bounded_connections() -> None:
    found = of("plugin_daemon")
    assert (found["DB_DATABASE"], found["DB_USERNAME"], found["DB_TYPE"], found["DB_SSL_MODE"]) == (
        "dify_plugin",
        "dify_plugin",
        "postgresql",
        "require",
    )
    assert (found["DB_MAX_OPEN_CONNS"], found["DB_MAX_IDLE_CONNS"]) == ("60", "40")


def test_plugins_are_kept_where_the_next_host_finds_them() -> None:
    found = of("plugin_daemon")
    assert (found["PLUGIN_STORAGE_TYPE"], found["PLUGIN_STORAGE_OSS_BUCKET"], found["S3_USE_PATH_STYLE"]) == ("aws_s3", "dify-plugins", "true")
    assert found["PLUGIN_REMOTE_INSTALLING_ENABLED"] == "false"


def test_files_have_a_public_and_an_internal_address() -> None:
    found = of("api")
    assert (found["FILES_URL"], found["INTERNAL_FILES_URL"]) == ("https://ai.hq.bank.example", "http://127.0.0.1:5001")
    assert of("plugin_daemon")["DIFY_INNER_API_URL"] == "http://127.0.0.1:5001"
    assert of("web")["SERVER_CONSOLE_API_URL"] == "http://127.0.0.1:5001"
    assert found["STORAGE_TYPE"] == "s3"
    assert "another name of INTERNAL_FILES_URL" in refused("api", {"SERVER_CONSOLE_API_URL": "http://one-node:5001"})


def test_webhooks_and_sockets_have_the_public_address() -> None:
    assert of("api")["ENDPOINT_URL_TEMPLATE"] == "https://ai.hq.bank.example/e/{hook_id}"
    assert of("web")["NEXT_PUBLIC_SOCKET_URL"] == "wss://ai.hq.bank.example"


def test_nobody_outside_is_called_by_default_or_by_override() -> None:
    api, web = of("api"), of("web")
    assert (api["CHECK_UPDATE_URL"], api["MARKETPLACE_ENABLED"], api["ENABLE_OTEL"], api["SENTRY_DSN"]) == ("", "false", "false", "")
    assert (web["NEXT_TELEMETRY_DISABLED"], web["MARKETPLACE_ENABLED"], web["MARKETPLACE_API_URL"], web["AMPLITUDE_API_KEY"]) == (
        "1",
        "false",
        "",
        "",
    )
    assert of("plugin_daemon")["SENTRY_ENABLED"] == "false"
    assert "must be empty" in refused("api", {"CHECK_UPDATE_URL": "https://updates.dify.ai"})
    assert "must be false" in refused("api", {"MARKETPLACE_ENABLED": True})


def test_code_of_users_goes_out_through_the_proxy_alone() -> None:
    assert of("api")["SSRF_PROXY_HTTPS_URL"] == "http://127.0.0.1:3128"
    assert of("sandbox")["HTTPS_PROXY"] == "http://10.89.77.1:3128"
    assert of("plugin_daemon")["HTTPS_PROXY"] == "http://127.0.0.1:3128"
    assert of("plugin_daemon")["NO_PROXY"] == "127.0.0.1,localhost"


def test_traces_are_sent_where_a_collector_is_named() -> None:
    found = of("api", otlp_url="http://127.0.0.1:4318")
    assert (found["ENABLE_OTEL"], found["OTLP_BASE_ENDPOINT"]) == ("true", "http://127.0.0.1:4318")


def test_the_api_takes_as_much_at_once_as_it_is_given() -> None:
    found = of("api")
    assert (found["SERVER_WORKER_CONNECTIONS"], found["SERVER_WORKER_AMOUNT"]) == ("200", "1")
    assert (found["SQLALCHEMY_POOL_SIZE"], found["SQLALCHEMY_MAX_OVERFLOW"]) == ("40", "20")
    assert (found["DIFY_BIND_ADDRESS"], found["DIFY_PORT"]) == ("127.0.0.1", "5101")
    assert found["SERVER_WORKER_CLASS"] == "gevent"
    assert of("websocket")["SERVER_WORKER_CLASS"] == "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"


def test_logs_are_json_in_the_journal_and_proxies_are_believed() -> None:
    found = of("api")
    assert (found["LOG_OUTPUT_FORMAT"], found["RESPECT_XFORWARD_HEADERS_ENABLED"]) == ("json", "true")
    assert "LOG_FILE" not in found
    assert "services write to the journal" in refused("api", {"LOG_FILE": "/app/logs/server.log"})


def test_a_value_cannot_smuggle_another_setting_in() -> None:
    assert "LOG_TZ: a value is one line" in refused("api", {"LOG_TZ": "UTC\nDEBUG=true"})


def test_all_faults_are_told_at_once_and_no_secret_with_them() -> None:
    broken = declared()
    broken["redis"] = {"hots": "127.0.0.1", "port": "many", "user": "dify", "password": 12345}
    broken["color"] = "blue"
    with pytest.raises(SettingsError) as error:
        parse(Site, broken)
    assert set(error.value.faults) == {
        "color: unknown key; known are internal_url, otlp_url, pip_mirror_url, plugin_daemon_url, plugin_postgresql, postgresql, proxy_url, "
        "public_url, rabbitmq, redis, release, s3, sandbox_proxy_url, sandbox_url, secrets.",
        "redis.hots: unknown key; did you mean host?",
        "redis.host: is missing.",
        "redis.port: expected a whole number, not str.",
        "redis.password: expected text, not int.",
    }


def test_a_release_that_nobody_knows_is_refused() -> None:
    assert "nothing is known of Dify 0.15.3; known are 1.16.0" in refused("api", release="0.15.3")


POOLS = [
    WorkerPool("workflow", ("workflow_based_app_execution",), 50, 2),
    WorkerPool("priority", ("priority_dataset", "priority_pipeline"), 4),
    WorkerPool("dataset", ("dataset", "dataset_summary", "pipeline"), 4),
    WorkerPool("default", tuple(queue for queue in QUEUES if "dataset" not in queue and "pipeline" not in queue and "based" not in queue), 4),
]


def test_every_queue_of_a_default_worker_is_consumed_by_exactly_one_pool() -> None:
    assert check_pools(POOLS, QUEUES) == []
    assert check_pools(POOLS[1:], QUEUES) == ["nobody consumes workflow_based_app_execution; put each into a pool, or its tasks wait for ever."]
    twice = [*POOLS[:3], dataclasses.replace(POOLS[3], queues=(*POOLS[3].queues, "dataset"))]
    assert check_pools(twice, QUEUES) == ["queue dataset: pools dataset and default consume it; keep it in one."]
    misspelt = [*POOLS[:2], dataclasses.replace(POOLS[2], queues=("dataset", "dataset_sumary", "pipeline")), POOLS[3]]
    assert check_pools(misspelt, QUEUES) == [
        "pool dataset: dataset_sumary: unknown queue; did you mean dataset_summary?",
        "nobody consumes dataset_summary; put each into a pool, or its tasks wait for ever.",
    ]


def test_every_queue_that_a_task_of_the_release_names_is_consumed() -> None:
    # Read in the tasks of Dify 1.16.0's source (tasks, schedule, services). Left out: `monitor` (only with a Redis broker), `enterprise_telemetry`
    # (another edition), `workflow_draft_var` (no code sends it), `workflow_professional`, `workflow_team`, `workflow_sandbox` (the cloud's).
    named = {
        *("api_token", "app_deletion", "app_rbac", "conversation", "dataset", "dataset_summary", "mail", "ops_trace", "pipeline", "plugin"),
        *("priority_dataset", "priority_pipeline", "retention", "schedule_executor", "schedule_poller", "trigger_refresh_executor"),
        *("trigger_refresh_publisher", "triggered_workflow_dispatcher", "workflow", "workflow_archive", "workflow_based_app_execution"),
        "workflow_storage",
    }
    assert named == set(RELEASES["1.16.0"].queues)


def test_pools_that_would_do_nothing_are_refused() -> None:
    assert "concurrency is at least 1" in check_pools([dataclasses.replace(POOLS[0], concurrency=0), *POOLS[1:]], QUEUES)[0]
    assert "it has no queues" in check_pools([*POOLS, WorkerPool("idle", (), 1)], QUEUES)[0]
    assert "a name has lower-case letters" in check_pools([dataclasses.replace(POOLS[0], name="Work flow"), *POOLS[1:]], QUEUES)[0]
    assert "two pools have the same name" in check_pools([dataclasses.replace(POOLS[0], name="default"), *POOLS[1:]], QUEUES)[0]


def test_a_worker_can_consume_quorum_queues_and_has_a_name_of_its_own() -> None:
    command = worker_command(POOLS[1], "priority_1@hq-app1")
    assert command[-4:-2] == ["worker.direct=true", "worker.enable_prefetch_count_reduction=false"]
    assert command[-2:] == ["task.create_missing_queue_type=quorum", "task.default_queue_type=quorum"]
    assert "--queues=priority_dataset,priority_pipeline" in command
    assert "--hostname=priority_1@hq-app1" in command
    assert "--concurrency=4" in command
