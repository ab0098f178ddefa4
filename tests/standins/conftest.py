"""The stand-in's images in containers of their own, beside real PostgreSQL, Redis and RabbitMQ from the lab's images.

No Ansible and no role here: what is tested is that the stand-in keeps Dify's contract, and that it misbehaves as Dify does.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from lab.standins.dify import build
from lab.standins.dify.graph import workflow_graph

NAME = "stand"
STORAGE = "/storage"
DATA = "sovereign-dify-lab:trixie-data"
API = f"{build.NAMESPACE}/dify-api:1.16.0"
NEXT_API = f"{build.NAMESPACE}/dify-api:1.16.1"
DAEMON = f"{build.NAMESPACE}/dify-plugin-daemon:0.6.3-local"
SANDBOX = f"{build.NAMESPACE}/dify-sandbox:0.2.15"
WEB = f"{build.NAMESPACE}/dify-web:1.16.0"
SQUID = f"{build.NAMESPACE}/squid:6"
PROVIDER = "langgenius/openai_api_compatible/openai_api_compatible"
PASSWORD = "passw0rd-of-tests"
LONGEST = 120
QUORUM = ("task.create_missing_queue_type=quorum", "task.default_queue_type=quorum")
# It tells that it is ready on the level INFO, which is not Celery's own.
WORKER = ("celery", "-A", "celery_entrypoint.celery", "worker", "--loglevel=INFO", "-P", "gevent", "-c", "4", "-Q")

POSTGRES = """
bin=/usr/lib/postgresql/17/bin
install -d -o postgres /data && su postgres -c "$bin/initdb -A trust -D /data" && echo 'host all all 0.0.0.0/0 trust' >> /data/pg_hba.conf
exec su postgres -c "exec $bin/postgres -D /data -c listen_addresses=* -c fsync=off"
"""


def docker(*arguments: str, check: bool = True) -> str:
    """Run docker and return what it printed, errors too."""
    done = subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stdout}"
    return done.stdout


def until(what: str, probe: Callable[[], Any], seconds: float = 60) -> Any:
    """Return the first true answer of a probe; fail where there is none in time."""
    deadline = time.monotonic() + seconds
    said: object = None
    while time.monotonic() < deadline:
        try:
            if said := probe():
                return said
        except (requests.RequestException, AssertionError) as error:
            said = error
        time.sleep(0.3)
    pytest.fail(f"{what}: not in {seconds:.0f} s; the last answer: {said}")


@dataclass
class Container:
    """A container of these tests."""

    name: str

    def url(self, port: int) -> str:
        """Return the address at which a port of its answers on this machine."""
        return f"http://{docker('port', self.name, str(port)).splitlines()[0].strip()}"

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in it."""
        return docker("exec", self.name, *command, check=check)

    def logs(self) -> str:
        """Return what it has said."""
        return docker("logs", self.name)

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return int(docker("wait", self.name))

    def remove(self) -> None:
        """Remove it."""
        docker("rm", "--force", "--volumes", self.name, check=False)


@dataclass
class Dify:
    """One Dify: the services beside it, its settings, what all its containers keep files and keys in, and the containers started for it."""

    environment: dict[str, str]
    storage: Path
    started: list[Container] = field(default_factory=list)

    def start(self, image: str, ports: tuple[int, ...] = (), command: tuple[str, ...] = (), name: str = "", **settings: str) -> Container:
        """Start a container with Dify's settings, some of them other ones; a command is run in place of the entrypoint."""
        container = Container(f"{NAME}-{name or uuid.uuid4().hex[:8]}")
        options = ["--detach", "--name", container.name, "--hostname", container.name, "--network", NAME]
        options += ["--volume", f"{self.storage}:{STORAGE}"]
        options += [word for name, value in (self.environment | settings).items() for word in ("--env", f"{name}={value}")]
        options += [word for port in ports for word in ("--publish", f"127.0.0.1::{port}")]
        if command:
            options += ["--entrypoint", command[0]]
        self.started.append(container)
        docker("run", *options, image, *command[1:])
        return container

    def api(self, image: str = API, **settings: str) -> Container:
        """Start an api and wait until it answers."""
        settings = {"MODE": "api", "SERVER_WORKER_CONNECTIONS": "100"} | settings
        container = self.start(image, (5001,), (), "", **settings)
        until("the api answers", lambda: requests.get(f"{container.url(5001)}/health", timeout=5).ok)
        return container

    def worker(self, queues: str, *arguments: str, image: str = API, **settings: str) -> Container:
        """Start a worker by Celery's own command, with trailing arguments, and wait until it is ready."""
        container = self.start(image, (), (*WORKER, queues, *arguments), "", **settings)
        until("the worker is ready", lambda: " ready." in container.logs())
        return container

    def migrate(self, image: str = API) -> tuple[int, str]:
        """Run a migration; return its exit code and what it said."""
        container = self.start(image, MODE="migration", MIGRATION_ENABLED="true")
        return container.wait(), container.logs()

    def sql(self, statement: str) -> list[list[str]]:
        """Ask the database of this Dify."""
        command = ["psql", "-U", "postgres", "-At", "-F", "|", "-c", statement, self.environment["DB_DATABASE"]]
        return [line.split("|") for line in docker("exec", f"{NAME}-postgres", *command).splitlines()]

    def ledger(self, task: str) -> dict[str, str]:
        """Return a task's row: times and starts, empty where there is none."""
        names = ("started_at", "finished_at", "starts")
        rows = self.sql(f"SELECT {', '.join(names)} FROM standin_tasks WHERE id = '{task}'")  # noqa: S608
        return dict(zip(names, rows[0], strict=True)) if rows else {}


@dataclass
class Console:
    """A session at an api's console."""

    base: str
    session: requests.Session

    def ask(self, method: str, path: str, status: int = 200, **arguments: Any) -> Any:
        """Ask for something and return the answer's JSON."""
        answer = self.session.request(method, f"{self.base}/console/api/{path}", timeout=60, **arguments)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def chat_key(self, tokens: int = 5, *, dataset: bool = False) -> str:
        """Make a chat application, with a dataset that it searches or without one, and return a key of it."""
        app = self.ask("POST", "apps", 201, json={"name": "chat", "mode": "chat"})
        model = {"provider": PROVIDER, "name": "assistant", "mode": "chat", "completion_params": {"max_tokens": tokens}}
        datasets = [{"dataset": {"enabled": True, "id": str(uuid.uuid4())}}] if dataset else []
        config = {"model": model, "dataset_configs": {"datasets": {"datasets": datasets}}}
        self.ask("POST", f"apps/{app['id']}/model-config", json=config)
        token: str = self.ask("POST", f"apps/{app['id']}/api-keys", 201)["token"]
        return token

    def workflow_key(self, graph: dict[str, Any] | None = None) -> str:
        """Make and publish a workflow, without a graph one that calls the sandbox and the model, and return a key of it."""
        app = self.ask("POST", "apps", 201, json={"name": "flow", "mode": "workflow"})
        graph = graph or workflow_graph(PROVIDER, "assistant", 4)
        self.ask("POST", f"apps/{app['id']}/workflows/draft", json={"graph": graph, "features": {}})
        self.ask("POST", f"apps/{app['id']}/workflows/publish", json={})
        token: str = self.ask("POST", f"apps/{app['id']}/api-keys", 201)["token"]
        return token


def login(api: Container) -> Console:
    """Log in at an api."""
    console = Console(api.url(5001), requests.Session())
    console.ask("POST", "login", json={"email": "admin@bank.test", "password": base64.b64encode(PASSWORD.encode()).decode()})
    console.session.headers["X-CSRF-Token"] = console.session.cookies["csrf_token"]
    return console


def set_up(api: Container) -> Console:
    """Make the first account, install the plugin and register the model, as a fresh platform needs it."""
    account = {"email": "admin@bank.test", "name": "Admin", "password": PASSWORD, "language": "en-US"}
    assert requests.post(f"{api.url(5001)}/console/api/setup", json=account, timeout=30).status_code == 201
    console = login(api)
    current = "workspaces/current"
    package = (build.ARCHIVES / build.PLUGIN).read_bytes()
    name = console.ask("POST", f"{current}/plugin/upload/pkg", files={"pkg": (build.PLUGIN, package)})["unique_identifier"]
    console.ask("POST", f"{current}/plugin/install/pkg", json={"plugin_unique_identifiers": [name]})
    credentials = {"endpoint_url": f"http://{NAME}-model:8000/v1", "api_key": "sk-secret-of-tests", "mode": "chat", "context_size": "4096"}
    body = {"model": "assistant", "model_type": "llm", "name": "gateway", "credentials": credentials}
    console.ask("POST", f"{current}/model-providers/{PROVIDER}/models/credentials", 201, json=body)
    return console


def stream(api: Container, path: str, key: str, **body: Any) -> Iterator[tuple[float, str]]:
    """Yield the lines of a streaming answer, each with the seconds since the request; fail where it has no end in time.

    An api that hears nothing sends a ping every 10 s, so that no time-out of the client's ends the request.
    """
    started = time.monotonic()
    whole = {"inputs": {}, "user": "u", "response_mode": "streaming"} | body
    with requests.post(f"{api.url(5001)}/v1/{path}", json=whole, headers={"Authorization": f"Bearer {key}"}, stream=True, timeout=120) as answer:
        assert answer.status_code == 200, answer.text
        for line in answer.iter_lines(chunk_size=1):
            if line:
                yield time.monotonic() - started, line.decode()
            if time.monotonic() - started > LONGEST:
                pytest.fail(f"{path}: no end in {LONGEST} s; the last line: {line.decode()}")


def events(lines: Iterator[tuple[float, str]]) -> list[dict[str, Any]]:
    """Return the events of a stream's data."""
    return [json.loads(line.removeprefix("data:")) for _, line in lines if line.startswith("data:")]


@pytest.fixture(scope="session")
def services() -> Iterator[None]:
    """Start PostgreSQL, Redis with a Sentinel, RabbitMQ, the model and the sandbox."""
    build.prepare()
    left = docker("ps", "--all", "--quiet", "--filter", f"network={NAME}").split()
    if left:
        docker("rm", "--force", "--volumes", *left)
    docker("network", "rm", NAME, check=False)
    docker("network", "create", NAME)
    rabbit = "echo 'loopback_users = none' > /etc/rabbitmq/rabbitmq.conf; exec rabbitmq-server"
    sentinel = f"sentinel resolve-hostnames yes\\nsentinel monitor main {NAME}-redis 6379 1\\n"
    commands = {
        "postgres": POSTGRES,
        "redis": "exec redis-server --bind 0.0.0.0 --protected-mode no --save ''",
        "sentinel": f"printf '{sentinel}' > /tmp/s.conf; exec redis-server /tmp/s.conf --sentinel --bind 0.0.0.0 --protected-mode no",
        "rabbitmq": rabbit,
    }
    for name, command in commands.items():
        docker("run", "--detach", "--name", f"{NAME}-{name}", "--hostname", f"{NAME}-{name}", "--network", NAME, DATA, "bash", "-c", command)
    model = Path(__file__).parent / "model.py"
    options = ["--detach", "--name", f"{NAME}-model", "--network", NAME, "--volume", f"{model}:/model.py:ro", "--entrypoint", "python3"]
    docker("run", *options, API, "/model.py")
    docker("run", "--detach", "--name", f"{NAME}-sandbox", "--network", NAME, "--env", "API_KEY=key-of-sandbox", SANDBOX)
    ready = ["psql", "-U", "postgres", "-c", "SELECT 1"]
    until("PostgreSQL answers", lambda: "1 row" in docker("exec", f"{NAME}-postgres", *ready, check=False))
    control = ["docker", "exec", f"{NAME}-rabbitmq", "rabbitmqctl", "--quiet"]
    until("RabbitMQ answers", lambda: subprocess.run([*control, "await_startup"], capture_output=True, check=False).returncode == 0, 180)
    yield
    docker("rm", "--force", "--volumes", *docker("ps", "--all", "--quiet", "--filter", f"network={NAME}").split())
    docker("network", "rm", NAME)


@pytest.fixture
def dify(services: None, tmp_path: Path) -> Iterator[Dify]:
    """Give settings of a fresh Dify: a database, a Redis that is empty, and a virtual host of RabbitMQ whose queues are quorum queues."""
    name = f"t{uuid.uuid4().hex[:8]}"
    docker("exec", f"{NAME}-postgres", "psql", "-U", "postgres", "-c", f"CREATE DATABASE {name}")
    docker("exec", f"{NAME}-redis", "redis-cli", "FLUSHALL")
    for command in (["add_vhost", name, "--default-queue-type", "quorum"], ["set_permissions", "-p", name, "guest", ".*", ".*", ".*"]):
        docker("exec", f"{NAME}-rabbitmq", "rabbitmqctl", "--quiet", *command)
    found = Dify(
        {
            "SECRET_KEY": "a-secret-that-is-long-enough-for-a-test",
            "DB_HOST": f"{NAME}-postgres",
            "DB_USERNAME": "postgres",
            "DB_PASSWORD": "unused",
            "DB_DATABASE": name,
            "REDIS_HOST": f"{NAME}-redis",
            "CELERY_BROKER_URL": f"amqp://guest:guest@{NAME}-rabbitmq:5672/{name}",
            "CELERY_BACKEND": "rabbitmq",
            "PLUGIN_DAEMON_URL": f"http://{NAME}-{name}:5002",
            "PLUGIN_DAEMON_KEY": "key-of-daemon",
            "CODE_EXECUTION_ENDPOINT": f"http://{NAME}-sandbox:8194",
            "CODE_EXECUTION_API_KEY": "key-of-sandbox",
            "LOG_OUTPUT_FORMAT": "json",
            "OPENDAL_FS_ROOT": STORAGE,
        },
        tmp_path / "storage",
    )
    found.storage.mkdir()
    found.storage.chmod(0o777)  # for the number that the images run by
    yield found
    for container in found.started:
        container.remove()
    docker("exec", f"{NAME}-rabbitmq", "rabbitmqctl", "--quiet", "delete_vhost", name)
    docker("exec", f"{NAME}-postgres", "dropdb", "-U", "postgres", "--force", name)


def start_daemon(dify: Dify, host: str) -> Container:
    """Start a plugin daemon and wait until it answers."""
    own = {
        "SERVER_KEY": "key-of-daemon",
        "DIFY_INNER_API_URL": "http://unused",
        "DIFY_INNER_API_KEY": "unused",
        "DB_PORT": "5432",
        "DB_DATABASE": f"{dify.environment['DB_DATABASE']}_plugin",
        "REDIS_PORT": "6379",
        "PLUGIN_WORKING_PATH": "/app/storage/cwd",
    }
    container = dify.start(DAEMON, (5002,), (), host, **own)
    until("the daemon answers", lambda: requests.get(f"{container.url(5002)}/health/check", timeout=5).ok)
    return container


@pytest.fixture
def platform(dify: Dify) -> tuple[Dify, Container, Console]:
    """Give a Dify that is migrated and set up, with a plugin daemon and one api."""
    assert "Database migration successful!" in dify.migrate()[1]
    start_daemon(dify, dify.environment["DB_DATABASE"])
    api = dify.api()
    return dify, api, set_up(api)
