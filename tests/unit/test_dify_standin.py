"""The stand-in for Dify, as far as it shows without its images: what its entrypoint decides, what it reads, its sandbox and its web.

The rest is tested on the images themselves, by tests/standins.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from lab.standins.dify import build
from lab.standins.dify.api.dify_standin import settings
from lab.standins.dify.sandbox import server as sandbox
from lab.substrate import docker

STANDIN = Path(build.__file__).parent

# Consumed by a default worker of Dify 1.16.0's community edition: read in its entrypoint, not in the stand-in.
DIFY_QUEUES = {
    *("api_token", "dataset", "dataset_summary", "priority_dataset", "priority_pipeline", "pipeline", "mail", "ops_trace", "app_deletion"),
    *("app_rbac", "plugin", "workflow_storage", "conversation", "workflow", "schedule_poller", "schedule_executor", "retention"),
    *("triggered_workflow_dispatcher", "trigger_refresh_publisher", "trigger_refresh_executor", "workflow_based_app_execution"),
}


@pytest.fixture
def entrypoint(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Run the entrypoint with programs that only write down how they were called; return the calls."""
    record = tmp_path / "calls"
    for name in ("flask", "celery", "gunicorn"):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@" -- >> {record}\n')
        program.chmod(0o755)

    def run(*arguments: str, **environment: str) -> list[list[str]]:
        record.unlink(missing_ok=True)
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["bash", STANDIN / "api/entrypoint.sh", *arguments], env=path | environment, check=True, capture_output=True)
        calls = record.read_text().removesuffix("--\n").split("\n--\n") if record.exists() else []
        return [call.split("\n") for call in map(str.strip, calls)]

    return run


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def test_queues_are_difys(entrypoint: Callable[..., list[list[str]]]) -> None:
    [call] = entrypoint(MODE="worker")
    assert set(option(call, "-Q").split(",")) == DIFY_QUEUES
    assert set(settings.QUEUES) == DIFY_QUEUES
    assert len(settings.QUEUES) == len(DIFY_QUEUES)


def test_worker_queues_win_over_queues(entrypoint: Callable[..., list[list[str]]]) -> None:
    [call] = entrypoint(MODE="worker", CELERY_QUEUES="mail")
    assert option(call, "-Q") == "mail"
    [call] = entrypoint(MODE="worker", CELERY_QUEUES="mail", CELERY_WORKER_QUEUES="dataset,plugin")
    assert option(call, "-Q") == "dataset,plugin"


def test_worker_defaults_and_names(entrypoint: Callable[..., list[list[str]]]) -> None:
    [call] = entrypoint(MODE="worker")
    assert (option(call, "-P"), option(call, "-c"), option(call, "--max-tasks-per-child")) == ("gevent", "1", "50")
    assert "--prefetch-multiplier=1" in call
    [call] = entrypoint(MODE="worker", CELERY_WORKER_CLASS="prefork", CELERY_WORKER_AMOUNT="3")
    assert (option(call, "-P"), option(call, "-c")) == ("prefork", "3")
    [call] = entrypoint(MODE="worker", CELERY_AUTO_SCALE="true", CELERY_MAX_WORKERS="6", CELERY_MIN_WORKERS="2")
    assert "--autoscale=6,2" in call
    assert "-c" not in call


def test_arguments_do_not_reach_a_worker(entrypoint: Callable[..., list[list[str]]]) -> None:
    [call] = entrypoint("task.default_queue_type=quorum", MODE="worker")
    assert "task.default_queue_type=quorum" not in call


def test_api_by_default_with_ten_connections(entrypoint: Callable[..., list[list[str]]]) -> None:
    [call] = entrypoint()
    assert call[0] == "gunicorn"
    assert (option(call, "--workers"), option(call, "--worker-connections"), option(call, "--timeout")) == ("1", "10", "200")
    assert (option(call, "--bind"), call[-1]) == ("0.0.0.0:5001", "app:socketio_app")


def test_migration_mode_needs_its_switch(entrypoint: Callable[..., list[list[str]]]) -> None:
    assert entrypoint(MODE="migration", MIGRATION_ENABLED="true") == [["flask", "upgrade-db"]]
    [call] = entrypoint(MODE="migration")
    assert call[0] == "gunicorn"


def test_switched_on_every_mode_migrates(entrypoint: Callable[..., list[list[str]]]) -> None:
    assert [call[0] for call in entrypoint(MODE="beat", MIGRATION_ENABLED="true")] == ["flask", "celery"]


def test_event_bus_ignores_sentinel() -> None:
    sentinel = {"REDIS_USE_SENTINEL": "true", "REDIS_SENTINELS": "a:26379", "REDIS_SENTINEL_SERVICE_NAME": "m", "REDIS_PASSWORD": "p/w"}
    assert settings.Settings.load(sentinel).event_bus_url == "redis://:p%2Fw@localhost:6379/0"
    assert settings.Settings.load(sentinel | {"EVENT_BUS_REDIS_URL": "redis://proxy:6380/0"}).event_bus_url == "redis://proxy:6380/0"
    assert settings.Settings.load({"PUBSUB_REDIS_URL": "redis://old/1"}).event_bus_url == "redis://old/1"


def test_result_back_end_of_redis_is_the_broker_whatever_it_is() -> None:
    broker = {"CELERY_BROKER_URL": "amqp://dify:x@127.0.0.1//"}
    assert settings.Settings.load(broker).celery_result_backend == "amqp://dify:x@127.0.0.1//"
    back_end = settings.Settings.load(broker | {"CELERY_BACKEND": "rabbitmq", "DB_PASSWORD": "p@ss"}).celery_result_backend
    assert back_end == "db+postgresql://postgres:p%40ss@localhost:5432/dify"


def test_pool_defaults_are_the_stock_ones() -> None:
    options = settings.Settings.load({}).engine_options
    assert (options["pool_size"], options["max_overflow"], options["pool_pre_ping"], options["pool_timeout"]) == (30, 10, False, 30)
    assert options["connect_args"] == {"options": "-c timezone=UTC"}
    assert settings.Settings.load({"DB_SESSION_TIMEZONE_OVERRIDE": ""}).engine_options["connect_args"] == {}


def test_unknown_settings_are_ignored_and_wrong_values_are_not() -> None:
    assert settings.Settings.load({"SQLALCHEMY_POOL_SIZ": "5"}).SQLALCHEMY_POOL_SIZE == 30
    with pytest.raises(settings.SettingsError, match="SQLALCHEMY_POOL_SIZE"):
        settings.Settings.load({"SQLALCHEMY_POOL_SIZE": "many"})
    with pytest.raises(settings.SettingsError, match="DB_TYPE"):
        settings.Settings.load({"DB_TYPE": "pgbouncer"})


def test_without_a_secret_key_each_node_invents_its_own(tmp_path: Path) -> None:
    nodes = [tmp_path / name for name in ("a", "b")]
    for node in nodes:
        node.mkdir()
    keys = [settings.secret_key(settings.Settings(), node) for node in nodes]
    assert keys[0] != keys[1]
    assert settings.secret_key(settings.Settings(), nodes[0]) == keys[0]
    assert {settings.secret_key(settings.Settings(SECRET_KEY="s"), node) for node in nodes} == {"s"}


def served(module: ModuleType, handler: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def sandbox_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(sandbox, "KEY", "right")
    yield from served(sandbox, sandbox.Handler)


def run_code(url: str, key: str, code: str) -> Any:
    body = json.dumps({"language": "python3", "code": code, "preload": "", "enable_network": False}).encode()
    request = urllib.request.Request(f"{url}/v1/sandbox/run", body, {"X-Api-Key": key, "Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def test_sandbox_runs_code_apart(sandbox_url: str) -> None:
    assert run_code(sandbox_url, "right", "print(6 * 7)") == {"code": 0, "message": "success", "data": {"stdout": "42\n", "error": ""}}
    answer = run_code(sandbox_url, "right", "import os; print(os.getpid())")
    assert int(answer["data"]["stdout"]) != os.getpid()
    assert "ZeroDivisionError" in run_code(sandbox_url, "right", "1 / 0")["data"]["error"]


def test_sandbox_ends_what_takes_too_long(sandbox_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    assert run_code(sandbox_url, "right", "import time; time.sleep(30)")["data"]["error"] == "error: timeout\n"


def test_sandbox_refuses_another_key(sandbox_url: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        run_code(sandbox_url, "wrong", "print(1)")
    with urllib.request.urlopen(f"{sandbox_url}/health", timeout=10) as answer:  # noqa: S310
        assert answer.status == 200


def test_sandbox_has_no_default_key() -> None:
    done = subprocess.run([sys.executable, STANDIN / "sandbox/server.py"], env={}, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "API_KEY" in done.stderr


def test_each_release_has_one_migration_more() -> None:
    versions = STANDIN / "api/migrations/versions"
    chain = {}
    for file in versions.glob("release_*.py"):
        found = re.findall(r"^(?:down_)?revision = (.+)$", file.read_text(), re.MULTILINE)
        chain[file.stem.removeprefix("release_").replace("_", ".")] = found
    assert chain == {"1.16.0": ['"standin_1_16_0"', "None"], "1.16.1": ['"standin_1_16_1"', '"standin_1_16_0"']}
    carried = {image.release: set(image.migrations) for image in build.IMAGES if image.recipe == "api"}
    assert carried == {"1.16.0": {"1.16.0"}, "1.16.1": {"1.16.0", "1.16.1"}}


def test_plugin_package_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build.plugin(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as package:
        manifest = yaml.safe_load(package.read("manifest.yaml"))
        [provider] = manifest["plugins"]["models"]
        declared = yaml.safe_load(package.read(provider))
    # What Dify's api insists on, in a plugin's declaration and in that of its provider: without one of these it fails to read any list of plugins.
    assert {"version", "author", "name", "description", "icon", "label", "created_at", "resource", "plugins", "meta"} <= set(manifest)
    assert isinstance(manifest["created_at"], str)
    assert manifest["resource"]["memory"] > 0
    assert declared["provider"] == "openai_api_compatible"
    assert {"label", "supported_model_types", "configurate_methods"} <= set(declared)
    schema = declared["model_credential_schema"]
    assert all({"variable", "label", "type"} <= set(field) for field in schema["credential_form_schemas"])
    assert all("en_US" in words["label"] for words in (manifest, declared, schema["model"], *schema["credential_form_schemas"]))


def test_archives_are_made_again_when_what_they_are_made_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.py").write_text("one")
    monkeypatch.setattr(build, "HERE", tmp_path)
    before = build.recipe()
    (tmp_path / "README.md").write_text("words")
    assert build.recipe() == before
    (tmp_path / "file.py").write_text("two")
    assert build.recipe() != before


def test_nothing_is_built_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ARCHIVES", tmp_path)
    monkeypatch.setattr(docker, "answers", lambda: pytest.fail("asked Docker although all is there"))
    (tmp_path / build.STAMP).write_text(build.recipe())
    assert build.prepare() is None


def test_every_recipe_is_there() -> None:
    for image in build.IMAGES:
        [base] = re.findall(r"^FROM sovereign-dify-lab:(.+)$", (STANDIN / "images" / f"{image.recipe}.Dockerfile").read_text(), re.MULTILINE)
        assert base in build.ROOTS
