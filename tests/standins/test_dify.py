"""Dify's contract, and Dify's traps, on the stand-in's images."""

from __future__ import annotations

import functools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from lab.standins.dify.graph import workflow_graph

from .conftest import (
    API,
    NAME,
    NEXT_API,
    PROVIDER,
    QUORUM,
    SQUID,
    WEB,
    Console,
    Container,
    Dify,
    docker,
    events,
    login,
    set_up,
    start_daemon,
    stream,
    until,
)

Platform = tuple[Dify, Container, Console]
CHAT = "chat-messages"
FLOW = "workflows/run"
WORKFLOWS = "workflow_based_app_execution"


def run_apart(*streams: Any) -> list[threading.Thread]:
    """Read streams in threads of their own."""
    threads = [threading.Thread(target=lambda lines=lines: list(lines), daemon=True) for lines in streams]
    for thread in threads:
        thread.start()
    return threads


def test_chat_comes_token_by_token(platform: Platform) -> None:
    _, api, console = platform
    lines = list(stream(api, CHAT, console.chat_key(10), query="Hello"))
    told = events(iter(lines))
    assert [event["event"] for event in told] == ["message"] * 10 + ["message_end"]
    assert lines[0][0] < lines[-1][0] / 2
    conversation = told[0]["conversation_id"]
    assert [event["conversation_id"] for event in told] == [conversation] * 11
    body = {"query": "And again", "inputs": {}, "user": "u", "conversation_id": conversation}
    answer = requests.post(f"{api.url(5001)}/v1/{CHAT}", json=body, headers={"Authorization": f"Bearer {console.chat_key()}"}, timeout=30)
    assert answer.status_code == 404, "another application's conversation"


def test_a_model_that_the_endpoint_refuses_is_not_registered(platform: Platform) -> None:
    _, _, console = platform
    credentials = {"endpoint_url": f"http://{NAME}-model:8000/v1", "api_key": "x"}
    path = f"workspaces/current/model-providers/{PROVIDER}/models"
    answer = console.ask("POST", f"{path}/credentials", 400, json={"model": "other", "model_type": "llm", "credentials": credentials})
    assert "404" in answer["message"]
    assert [model["model"] for model in console.ask("GET", path)["data"]] == ["assistant"]
    shown = console.ask("GET", f"{path}/credentials", params={"model": "assistant", "model_type": "llm"})["credentials"]
    assert shown["api_key"] == "sk-sec" + "*" * 12 + "ts"


def test_a_stream_takes_three_connections_and_without_a_name_two(platform: Platform) -> None:
    dify, api, console = platform
    key = console.chat_key(20)
    taken = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{dify.environment['DB_DATABASE']}' AND state = 'idle in transaction'"  # noqa: S608
    for naming, wanted in ((True, 3), (False, 2)):
        threads = run_apart(*(stream(api, CHAT, key, query="Hello", auto_generate_name=naming) for _ in range(4)))
        most = 0
        while any(thread.is_alive() for thread in threads):
            most = max(most, int(dify.sql(taken)[0][0]))
        assert most == 4 * wanted
        assert dify.sql(taken) == [["0"]]


def test_a_small_pool_fails_under_streams_that_wait_for_each_other(platform: Platform) -> None:
    dify, _, console = platform
    small = dify.api(SQLALCHEMY_POOL_SIZE="3", SQLALCHEMY_MAX_OVERFLOW="0", SQLALCHEMY_POOL_TIMEOUT="3")
    # A stream keeps two connections to its end, so one of four may get through; its 15 s are longer than all that the others may wait together.
    key = console.chat_key(150)

    def end_of_stream(_: int) -> str:
        try:
            return str(events(stream(small, CHAT, key, query="Hello"))[-1]["event"])
        except AssertionError as error:
            # One that finds not even its first connection is refused before it begins.
            assert '"status":500' in str(error), error
            return "error"

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(end_of_stream, range(4)))
    assert found.count("error") >= 3, found
    assert "QueuePool limit of size 3" in small.logs()
    assert events(stream(small, CHAT, key, query="Hello"))[-1]["event"] == "message_end", "it recovers"


def searching_api(dify: Dify, **settings: str) -> tuple[Container, Console]:
    """Start a Dify whose api finds pgvector in its own database, or where the settings say."""
    assert "Database migration successful!" in dify.migrate()[1]
    start_daemon(dify, dify.environment["DB_DATABASE"])
    own = {"PGVECTOR_HOST": dify.environment["DB_HOST"], "PGVECTOR_PORT": "5432", "PGVECTOR_USER": "postgres", "PGVECTOR_PASSWORD": "unused"}
    api = dify.api(**own | {"PGVECTOR_DATABASE": dify.environment["DB_DATABASE"], "RETRIEVAL_SERVICE_EXECUTORS": "2"} | settings)
    return api, set_up(api)


def test_every_retrieval_connects_to_pgvector_anew_and_keeps_nothing(dify: Dify) -> None:
    api, console = searching_api(dify)
    plain, searching = console.chat_key(), console.chat_key(dataset=True)
    sessions = f"SELECT sessions FROM pg_stat_database WHERE datname = '{dify.environment['DB_DATABASE']}'"  # noqa: S608

    def opened(key: str) -> int:
        before = int(dify.sql(sessions)[0][0])
        for _ in range(5):
            assert events(stream(api, CHAT, key, query="Hello", auto_generate_name=False))[-1]["event"] == "message_end"
        time.sleep(2)  # The server counts a session some time after its end; psql's own one is counted too.
        return int(dify.sql(sessions)[0][0]) - before

    opened(plain)
    assert opened(plain) <= 2, "the pool of SQLAlchemy is full"
    assert opened(searching) >= 10, "five hybrid searches, two connections each"


def test_a_retrieval_hangs_where_a_proxy_never_answers_whatever_time_out_libpq_is_given(dify: Dify) -> None:
    listens = "import socket, time; s = socket.create_server(('', 5432)); time.sleep(600)"
    silent = dify.start(API, (), ("python3", "-c", listens))
    api, console = searching_api(dify, PGVECTOR_HOST=silent.name, PGCONNECT_TIMEOUT="2")
    connects = f"import psycopg2; psycopg2.connect(host='{silent.name}', user='postgres')"
    assert "timeout expired" in api.run("python3", "-c", connects, check=False), "without gevent the time-out ends it"
    key = console.chat_key(dataset=True)
    body = {"query": "Hello", "inputs": {}, "user": "u", "response_mode": "blocking"}
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{api.url(5001)}/v1/{CHAT}", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=(5, 12))


def test_health_queues_behind_streams(platform: Platform) -> None:
    dify, _, console = platform
    narrow = dify.api(SERVER_WORKER_CONNECTIONS="2")
    key = console.chat_key(40)
    threads = run_apart(*(stream(narrow, CHAT, key, query="Hello") for _ in range(2)))
    time.sleep(0.5)
    started = time.monotonic()
    assert requests.get(f"{narrow.url(5001)}/health", timeout=30).ok
    assert time.monotonic() - started > 2
    for thread in threads:
        thread.join()


def test_workflow_goes_over_quorum_queue_and_event_bus(platform: Platform) -> None:
    dify, api, console = platform
    dify.worker(WORKFLOWS, *QUORUM)
    told = [event["event"] for event in events(stream(api, FLOW, console.workflow_key(), inputs={"query": "hush"}))]
    assert told[0] == "workflow_started"
    assert told.count("text_chunk") == 4
    assert told[-1] == "workflow_finished"
    queues = docker("exec", f"{NAME}-rabbitmq", "rabbitmqctl", "--quiet", "list_queues", "-p", dify.environment["DB_DATABASE"], "name", "type")
    assert any(line.split() == [WORKFLOWS, "quorum"] for line in queues.splitlines()), queues
    [[unfinished]] = dify.sql("SELECT count(*) FROM standin_tasks WHERE finished_at IS NULL")
    assert unfinished == "0"


def test_blocking_workflow_runs_in_the_api(platform: Platform) -> None:
    _, api, console = platform
    body = {"inputs": {"query": "hush"}, "user": "u"}
    answer = requests.post(f"{api.url(5001)}/v1/{FLOW}", json=body, headers={"Authorization": f"Bearer {console.workflow_key()}"}, timeout=60)
    assert answer.json()["data"]["outputs"] == {"text": "word0 word1 word2 word3 ", "loud": "HUSH"}


@pytest.mark.parametrize(("node", "field"), [("start", "label"), ("start", "type"), ("code", "outputs"), ("llm", "context"), ("llm", "mode")])
def test_a_workflow_that_lacks_what_dify_reads_is_published_and_its_runs_fail(platform: Platform, node: str, field: str) -> None:
    _, api, console = platform
    graph = workflow_graph(PROVIDER, "assistant", 4)
    (data,) = [item["data"] for item in graph["nodes"] if item["id"] == node]
    {"start": lambda: data["variables"][0], "llm": lambda: data["model"] if field == "mode" else data}.get(node, lambda: data)().pop(field)
    body = {"inputs": {"query": "hush"}, "user": "u"}
    key = console.workflow_key(graph)
    answer = requests.post(f"{api.url(5001)}/v1/{FLOW}", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    assert answer.json()["data"]["status"] == "failed"
    assert f"{field}\n  Field required" in answer.json()["data"]["error"]


def test_quorum_queues_without_the_arguments(platform: Platform) -> None:
    dify, _, _ = platform
    worker = dify.start(API, MODE="worker", CELERY_WORKER_QUEUES="mail")
    until("RabbitMQ refuses the worker", lambda: "does not support global qos" in worker.logs())


def test_sentinel_alone_breaks_streaming_workflows(platform: Platform) -> None:
    dify, _, console = platform
    key = console.workflow_key()
    sentinel = {
        "REDIS_USE_SENTINEL": "true",
        "REDIS_SENTINELS": f"{NAME}-sentinel:26379",
        "REDIS_SENTINEL_SERVICE_NAME": "main",
        "REDIS_SENTINEL_SOCKET_TIMEOUT": "1",
        "REDIS_HOST": "localhost",
        "REDIS_RETRY_RETRIES": "0",
    }
    blind = dify.api(**sentinel)
    login(blind)
    assert [line for _, line in stream(blind, FLOW, key, inputs={"query": "hush"})] == ["event: ping"]
    dify.worker(WORKFLOWS, *QUORUM)
    seeing = dify.api(**sentinel, EVENT_BUS_REDIS_URL=f"redis://{NAME}-redis:6379/0")
    assert events(stream(seeing, FLOW, key, inputs={"query": "hush"}))[-1]["event"] == "workflow_finished"


@pytest.mark.parametrize("kind", ["streams", "sharded"])
def test_other_ways_of_the_event_bus(platform: Platform, kind: str) -> None:
    dify, _, console = platform
    dify.worker(WORKFLOWS, *QUORUM, EVENT_BUS_REDIS_CHANNEL_TYPE=kind)
    api = dify.api(EVENT_BUS_REDIS_CHANNEL_TYPE=kind)
    assert events(stream(api, FLOW, console.workflow_key(), inputs={"query": "hush"}))[-1]["event"] == "workflow_finished"


def test_redis_as_result_back_end_breaks_with_rabbitmq(platform: Platform) -> None:
    dify, _, console = platform
    broken = dify.api(CELERY_BACKEND="redis")
    lines = [line for _, line in stream(broken, FLOW, console.workflow_key(), inputs={"query": "hush"})]
    assert not any("workflow_started" in line for line in lines), lines
    assert "amqp" in broken.logs()


def test_sessions_are_valid_where_the_secret_is_the_same(platform: Platform) -> None:
    dify, _, console = platform
    for settings, status in (({}, 200), ({"SECRET_KEY": ""}, 401)):
        other = Console(dify.api(**settings).url(5001), console.session)
        other.ask("GET", "account/profile", status)


def test_files_and_keys_of_one_node_are_not_another_ones(platform: Platform) -> None:
    dify, api, console = platform
    key = console.chat_key()
    other = dify.api(OPENDAL_FS_ROOT="storage")
    answer = requests.post(
        f"{other.url(5001)}/v1/{CHAT}", json={"query": "Hello", "inputs": {}, "user": "u"}, headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    assert answer.status_code == 400
    assert "Private key not found" in answer.json()["message"]
    uploaded = requests.post(
        f"{api.url(5001)}/v1/files/upload",
        files={"file": ("a.txt", b"words", "text/plain")},
        data={"user": "u"},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    ).json()
    assert requests.get(f"{api.url(5001)}{uploaded['source_url']}", timeout=30).content == b"words"
    assert requests.get(f"{other.url(5001)}{uploaded['source_url']}", timeout=30).status_code == 404


def test_only_one_of_two_migrations_runs_and_both_end_well(dify: Dify) -> None:
    both = [dify.start(API, MODE="migration", MIGRATION_ENABLED="true") for _ in range(2)]
    assert [container.wait() for container in both] == [0, 0]
    said = sorted(container.logs().splitlines()[-2] for container in both)
    assert said == ["Database migration skipped", "Database migration successful!"]
    assert dify.sql("SELECT release FROM standin_migrations") == [["1.16.0"]]


def test_upgrade_forward_and_no_way_back(platform: Platform) -> None:
    dify, api, console = platform
    key = console.chat_key()
    early = dify.api(NEXT_API)
    assert events(stream(early, CHAT, key, query="Hello"))[-1]["event"] == "error", "new code on the old schema"
    code, said = dify.migrate(NEXT_API)
    assert (code, "Database migration successful!" in said) == (0, True)
    assert events(stream(early, CHAT, key, query="Hello"))[-1]["event"] == "message_end"
    assert events(stream(api, CHAT, key, query="Hello"))[-1]["event"] == "message_end", "the old release lives with the new schema"
    code, said = dify.migrate(API)
    assert code == 1
    assert "Can't locate revision" in said


def test_lost_connections_fail_requests_unless_pinged_before(platform: Platform) -> None:
    dify, api, _ = platform
    careful = dify.api(SQLALCHEMY_POOL_PRE_PING="true")
    for container in (api, careful):
        assert requests.get(f"{container.url(5001)}/console/api/setup", timeout=30).ok
    others = f"datname = '{dify.environment['DB_DATABASE']}' AND pid <> pg_backend_pid()"
    dify.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")  # noqa: S608
    assert requests.get(f"{careful.url(5001)}/console/api/setup", timeout=30).status_code == 200
    assert requests.get(f"{api.url(5001)}/console/api/setup", timeout=30).status_code == 500


def started(dify: Dify, task: str) -> str:
    return dify.ledger(task).get("started_at", "")


def enqueue(api: Container, queue: str, seconds: float) -> str:
    return api.run("flask", "enqueue", "--queue", queue, "--seconds", str(seconds)).splitlines()[-1]


def nothing_waits(dify: Dify, queue: str) -> bool:
    """Tell whether a queue holds no message, be it with a worker or not."""
    command = ["rabbitmqctl", "--quiet", "list_queues", "-p", dify.environment["DB_DATABASE"], "name", "messages"]
    return [queue, "0"] in [line.split() for line in docker("exec", f"{NAME}-rabbitmq", *command).splitlines()]


def test_a_warm_shutdown_loses_no_task_and_a_kill_loses_the_running_one(platform: Platform) -> None:
    dify, api, _ = platform
    for signal, finished in (("TERM", True), ("KILL", False)):
        worker = dify.worker("dataset", *QUORUM)
        task = enqueue(api, "dataset", 12)
        until("the task starts", functools.partial(started, dify, task))
        # Its acknowledgement may be under way still: a worker killed in that moment would leave the task to others. What RabbitMQ says of a
        # quorum queue is up to five seconds old.
        time.sleep(6)
        until("its message is acknowledged", functools.partial(nothing_waits, dify, "dataset"))
        docker("kill", "--signal", signal, worker.name)
        worker.wait()
        assert bool(dify.ledger(task)["finished_at"]) is finished
    later = dify.worker("dataset", *QUORUM)
    time.sleep(14)
    assert not dify.ledger(task)["finished_at"], "acknowledged when it started, so nobody does it again"
    assert dify.ledger(task)["starts"] == "1"
    later.remove()


def test_a_second_beat_doubles_what_is_sent(platform: Platform) -> None:
    dify, _, _ = platform
    dify.worker("schedule_executor", *QUORUM)
    statement = "SELECT count(DISTINCT name) FROM standin_tasks WHERE name LIKE 'tick of %'"
    for beats in ("1", "2"):
        dify.start(API, MODE="beat")
        until(f"{beats} beats send", functools.partial(lambda wanted: dify.sql(statement) == [[wanted]], beats))


def test_a_second_daemon_does_not_know_what_the_first_installed(dify: Dify) -> None:
    dify.migrate()
    first = dify.environment["DB_DATABASE"]
    start_daemon(dify, first)
    second = start_daemon(dify, f"{first}-2")
    api = dify.api()
    set_up(api)
    header = {"X-Api-Key": "key-of-daemon"}
    [[tenant]] = dify.sql("SELECT id FROM tenants")
    models = f"{second.url(5002)}/plugin/{tenant}/management/models"
    assert requests.get(models, headers=header, timeout=30).json()["data"] == []
    assert requests.get(models, headers={"X-Api-Key": "other"}, timeout=30).status_code == 401
    moved = start_daemon(dify, f"{first}-3")
    assert "installed and cannot be started" in moved.logs(), "its storage is not the first one's"


def daemons(dify: Dify) -> tuple[str, str]:
    """Return the URL of a Dify's plugin daemon for its tenant, and the id of the plugin."""
    (daemon,) = [container for container in dify.started if container.name == f"{NAME}-{dify.environment['DB_DATABASE']}"]
    [[tenant]] = dify.sql("SELECT id FROM tenants")
    return f"{daemon.url(5002)}/plugin/{tenant}", PROVIDER.rpartition("/")[0]


KEY = {"X-Api-Key": "key-of-daemon"}


def test_the_daemon_gives_every_field_that_dify_reads_of_plugins_and_tasks(platform: Platform) -> None:
    dify, _, _ = platform
    url, plugin = daemons(dify)

    def ask(path: str) -> Any:
        return requests.get(f"{url}/management/{path}", headers=KEY, timeout=30).json()["data"]

    entity = {"id", "created_at", "updated_at", "tenant_id", "plugin_id", "plugin_unique_identifier", "declaration"}
    installation = {"endpoints_setups", "endpoints_active", "runtime_type", "source", "meta", "version", "checksum", "name", "installation_id"}
    declaration = {"version", "author", "name", "description", "icon", "label", "created_at", "resource", "plugins", "meta", "model"}
    listed = ask("list")
    assert listed["total"] == 1
    [found] = listed["list"]
    assert entity | installation <= set(found)
    assert found["plugin_id"] == plugin
    assert found["plugin_unique_identifier"] == f"{plugin}:{found['version']}@{found['checksum']}"
    assert declaration <= set(found["declaration"])
    assert found["declaration"]["created_at"] == "2026-01-01T00:00:00Z"
    assert ask("model/list") == {"list": [found], "has_more": False}
    assert ask("tool/list")["list"] == []
    [provider] = ask("models")
    assert entity | {"provider"} <= set(provider)
    [task] = ask("install/tasks")
    assert {"id", "created_at", "updated_at", "status", "total_plugins", "completed_plugins", "plugins"} <= set(task)
    assert {"plugin_unique_identifier", "plugin_id", "status", "message", "icon", "labels"} <= set(task["plugins"][0])
    assert "en_US" in task["plugins"][0]["labels"]


def test_models_embed_and_rank_through_the_daemon(platform: Platform) -> None:
    dify, _, _ = platform
    url, plugin = daemons(dify)
    credentials = {"endpoint_url": f"http://{NAME}-model:8000/v1", "context_size": "512"}

    def ask(path: str, **data: Any) -> Any:
        body = {"data": {"provider": "openai_api_compatible", "model": "assistant", "credentials": credentials, **data}}
        answer = requests.post(f"{url}/dispatch/{path}", json=body, headers={**KEY, "X-Plugin-ID": plugin}, timeout=30)
        [line] = [line for line in answer.text.splitlines() if line]
        said = json.loads(line.removeprefix("data:"))
        assert said["code"] == 0, said
        return said["data"]

    for kind in ("text-embedding", "rerank"):
        assert ask("model/validate_model_credentials", model_type=kind)["result"] is True
        assert ask("model/schema", model_type=kind)["model_schema"]["model_properties"]["context_size"] == 512
    embedded = ask("text_embedding/invoke", model_type="text-embedding", texts=["a", "bcd"], input_type="document")
    assert embedded["embeddings"] == [[1.0, 0.5], [3.0, 0.5]], "in the order of the texts, whatever the order of the answer"
    assert {"tokens", "total_tokens", "unit_price", "price_unit", "total_price", "currency", "latency"} <= set(embedded["usage"])
    assert len(ask("text_embedding/num_tokens", model_type="text-embedding", texts=["a", "b"])["num_tokens"]) == 2
    ranked = ask("rerank/invoke", model_type="rerank", query="q", docs=["four", "a", "to"], score_threshold=0.3, top_n=3)
    assert ranked["docs"] == [{"index": 1, "text": "a", "score": 1.0}, {"index": 2, "text": "to", "score": 0.5}]


def test_the_sandbox_has_jinja2_for_templates(services: None) -> None:
    body = json.dumps({"language": "python3", "preload": "import jinja2", "code": "print(jinja2.Template('{{ a }}!').render(a='hush'))"})
    ask = ("curl", "--silent", "--header", "X-Api-Key: key-of-sandbox", "--json", body, "http://127.0.0.1:8194/v1/sandbox/run")
    assert json.loads(Container(f"{NAME}-sandbox").run(*ask))["data"] == {"stdout": "hush!\n", "error": ""}


def test_images_run_as_upstreams_do(dify: Dify) -> None:
    assert docker("run", "--rm", "--entrypoint", "id", API, "-u").strip() == "1001"
    web = dify.start(WEB, (3000,))
    page = until("the web answers", lambda: requests.get(web.url(3000), timeout=5))
    assert page.history[0].status_code == 307
    assert "stand-in" in page.text
    squid = dify.start(SQUID, (3128,))
    until("squid answers", lambda: requests.get(squid.url(3128), timeout=5).status_code == 400)


def test_logs_are_json_lines(platform: Platform) -> None:
    _, api, _ = platform
    requests.post(f"{api.url(5001)}/v1/{CHAT}", json=[], timeout=30)
    [line] = [json.loads(line) for line in api.logs().splitlines() if "no part of Dify" in line]
    assert set(line) == {"ts", "severity", "service", "caller", "message"}
