"""Stand-in for Dify's plugin daemon: its routes, its environment and its state, with one kind of plugin that it runs itself.

Plugins are packages, kept in the daemon's storage and listed in its database. A daemon loads them when it starts and when it installs one;
what another daemon has installed meanwhile it does not run, and a package that is missing from its storage is a plugin lost.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import hashlib  # noqa: E402  (gevent comes before all that it patches)
import hmac  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
import zipfile  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Iterator, Mapping  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import boto3  # noqa: E402
import gevent  # noqa: E402
import httpx  # noqa: E402
import psycopg2  # noqa: E402
import redis  # noqa: E402
import sqlalchemy as sa  # noqa: E402
import yaml  # noqa: E402
from botocore.client import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
from dify_standin.patches import patch_psycopg  # noqa: E402
from flask import Flask, Response, request  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from redis.sentinel import Sentinel  # noqa: E402

Json = dict[str, Any]
LOG = logging.getLogger("plugin_daemon")
VERSION = (Path(__file__).parent / "VERSION").read_text().strip()
NEEDED = (
    *("SERVER_KEY", "DIFY_INNER_API_URL", "DIFY_INNER_API_KEY", "PLUGIN_WORKING_PATH"),
    *("DB_HOST", "DB_PORT", "DB_USERNAME", "DB_PASSWORD", "DB_DATABASE", "REDIS_HOST", "REDIS_PORT"),
)
DATABASE_TYPES = ("postgresql", "pgbouncer")
OTHER_KINDS = ("tools", "datasources", "triggers", "agent_strategies")
"""Kinds of plugins that the stand-in has none of; Dify lists them beside the models'."""
PLUGINS = """CREATE TABLE IF NOT EXISTS plugin_installations (
    id text PRIMARY KEY, tenant_id text NOT NULL, plugin_unique_identifier text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, plugin_unique_identifier))"""


class DaemonError(Exception):
    """Something that a caller is told, in the daemon's form."""

    def __init__(self, kind: str, message: str) -> None:
        """Keep the words and what kind of error they are."""
        super().__init__(message)
        self.kind = kind

    def body(self) -> Json:
        """Return the answer."""
        return {"code": -500, "message": json.dumps({"error_type": self.kind, "message": str(self)}), "data": None}


def check(environ: Mapping[str, str]) -> None:
    """End the start where a setting is missing.

    Raises:
        SystemExit: One is.
    """
    for name in NEEDED:
        if not environ.get(name):
            sys.exit(f"[PANIC] invalid configuration: Key: 'Config.{name}' Error:Field validation for '{name}' failed on the 'required' tag")
    if environ.get("DB_TYPE", "postgresql") not in DATABASE_TYPES:
        sys.exit(f"[PANIC] unsupported database type {environ['DB_TYPE']}; the stand-in has {' and '.join(DATABASE_TYPES)}")
    if environ.get("PLUGIN_STORAGE_TYPE", "local") == "aws_s3" and not (environ.get("PLUGIN_STORAGE_OSS_BUCKET") and environ.get("AWS_REGION")):
        sys.exit("[PANIC] plugin storage bucket or aws region is empty")


def connect(environ: Mapping[str, str], database: str) -> Any:
    """Connect to a database; DB_EXTRAS are more words of libpq's own, not the query of a URL as for the api."""
    words = {
        "host": environ["DB_HOST"],
        "port": environ["DB_PORT"],
        "user": environ["DB_USERNAME"],
        "password": environ["DB_PASSWORD"],
        "dbname": database,
        "sslmode": environ.get("DB_SSL_MODE", "disable"),
    }
    quoted = " ".join(f"{name}='{value}'" for name, value in words.items())
    return psycopg2.connect(f"{quoted} {environ.get('DB_EXTRAS', '')}".strip())


def make_engine(environ: Mapping[str, str]) -> Any:
    """Return the engine of the daemon's own database, made where it is missing, with the table in it."""
    database = environ["DB_DATABASE"]
    try:
        connect(environ, database).close()
    except psycopg2.OperationalError as error:
        if "does not exist" not in str(error):
            raise
        other = connect(environ, environ.get("DB_DEFAULT_DATABASE", "postgres"))
        other.autocommit = True
        with other.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{database}"')
        other.close()
    limit = int(environ.get("DB_MAX_OPEN_CONNS", "30"))
    engine = sa.create_engine("postgresql://", creator=lambda: connect(environ, database), pool_size=limit, max_overflow=0, pool_pre_ping=True)
    with engine.begin() as connection:
        connection.execute(sa.text(PLUGINS))
    return engine


def make_redis(environ: Mapping[str, str]) -> Any:
    """Return the client of Redis, which must answer at the start."""
    password, user = environ.get("REDIS_PASSWORD") or None, environ.get("REDIS_USERNAME") or None
    if environ.get("REDIS_USE_SENTINEL", "false").lower() == "true":
        nodes = [(host, int(port)) for host, port in (node.split(":") for node in environ["REDIS_SENTINELS"].split(","))]
        own = {"username": environ.get("REDIS_SENTINEL_USERNAME") or None, "password": environ.get("REDIS_SENTINEL_PASSWORD") or None}
        client = Sentinel(nodes, sentinel_kwargs=own).master_for(environ["REDIS_SENTINEL_SERVICE_NAME"], username=user, password=password)
    else:
        tls = environ.get("REDIS_USE_SSL", "false").lower() == "true"
        client = redis.Redis(environ["REDIS_HOST"], int(environ["REDIS_PORT"]), username=user, password=password, ssl=tls, ssl_cert_reqs="none")
    client.ping()
    return client


class Packages:
    """The storage of packages: a directory, or a bucket."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Use what PLUGIN_STORAGE_TYPE says."""
        self.bucket = environ.get("PLUGIN_STORAGE_OSS_BUCKET", "")
        self.root = Path(environ.get("PLUGIN_STORAGE_LOCAL_ROOT", "/app/storage"))
        self.prefix = environ.get("PLUGIN_PACKAGE_CACHE_PATH", "plugin_packages")
        self.client: Any = None
        if environ.get("PLUGIN_STORAGE_TYPE", "local") == "aws_s3":
            style = "path" if environ.get("S3_USE_PATH_STYLE", "true").lower() == "true" else "virtual"
            self.client = boto3.client(
                "s3",
                endpoint_url=environ.get("S3_ENDPOINT") or None,
                region_name=environ["AWS_REGION"],
                aws_access_key_id=environ.get("AWS_ACCESS_KEY") or None,
                aws_secret_access_key=environ.get("AWS_SECRET_KEY") or None,
                config=Config(s3={"addressing_style": style}),
            )

    def save(self, name: str, content: bytes) -> None:
        """Keep a package."""
        key = f"{self.prefix}/{name.replace(':', '-')}"
        if self.client:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=content)
            return
        file = self.root / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def load(self, name: str) -> bytes:
        """Return a package; raise LookupError where there is none."""
        key = f"{self.prefix}/{name.replace(':', '-')}"
        try:
            if self.client:
                content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
                return content
            return (self.root / key).read_bytes()
        except (FileNotFoundError, ClientError) as error:
            raise LookupError(f"the storage has no package {name}") from error


def decode(content: bytes, must_be_signed: bool) -> Json:
    """Return what a package says about itself.

    Args:
        content: The package: a zip with `manifest.yaml` and the files that it names.
        must_be_signed: Whether an unsigned one is refused; the signature stands in the archive's comment.

    Raises:
        DaemonError: It is no such package.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if must_be_signed and b"signature" not in archive.comment:
                message = "plugin verification has been enabled, and the plugin you want to install has a bad signature"
                raise DaemonError("PluginDaemonBadRequestError", message)
            manifest: Json = yaml.safe_load(archive.read("manifest.yaml"))
            provider: Json = yaml.safe_load(archive.read(manifest["plugins"]["models"][0]))
    except (zipfile.BadZipFile, KeyError, IndexError, yaml.YAMLError) as error:
        raise DaemonError("PluginDaemonBadRequestError", f"failed to decode the plugin: {error}") from error
    identifier = f"{manifest['author']}/{manifest['name']}:{manifest['version']}@{hashlib.sha256(content).hexdigest()}"
    return {"unique_identifier": identifier, "manifest": manifest | {"model": provider}, "verification": None}


class Daemon:
    """The daemon's state and routes."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Start: every service that it needs must answer, and every installed plugin is loaded."""
        self.key = environ["SERVER_KEY"]
        self.signed = environ.get("FORCE_VERIFYING_SIGNATURE", "true").lower() == "true"
        Path(environ["PLUGIN_WORKING_PATH"]).mkdir(parents=True, exist_ok=True)
        self.redis = make_redis(environ)
        self.engine = make_engine(environ)
        self.packages = Packages(environ)
        self.client = httpx.Client(limits=httpx.Limits(max_connections=None), timeout=int(environ.get("PLUGIN_MAX_EXECUTION_TIMEOUT", "600")))
        self.running: dict[str, Json] = {}
        self.tasks: defaultdict[str, dict[str, Json]] = defaultdict(dict)
        self.counters = {"requests": 0, "streams": 0, "failures": 0}
        for row in self._rows("SELECT DISTINCT plugin_unique_identifier FROM plugin_installations"):
            name = row["plugin_unique_identifier"]
            try:
                self._launch(name)
            except LookupError as error:
                LOG.error("plugin %s is installed and cannot be started: %s", name, error)

    def application(self) -> Any:
        """Return the WSGI application."""
        app = Flask("plugin_daemon")
        manage, dispatch = "/plugin/<tenant>/management", "/plugin/<tenant>/dispatch"
        rules = {
            ("GET", "/health/check"): lambda: {"status": "ok", "version": VERSION, "pool_status": {"free": 0, "busy": self.counters["streams"]}},
            ("GET", "/metrics"): self.metrics,
            ("GET", "/metrics/"): self.metrics,
            ("GET", f"{manage}/models"): self.models,
            ("GET", f"{manage}/list"): self.list_plugins,
            ("GET", f"{manage}/<category>/list"): self.list_category,
            ("GET", f"{manage}/fetch/identifier"): lambda tenant: self._data(self.known(request.args["plugin_unique_identifier"])),
            ("GET", f"{manage}/fetch/manifest"): lambda tenant: self._data(self.described()["manifest"]),
            ("GET", f"{manage}/decode/from_identifier"): lambda tenant: self._data(self.described()),
            ("POST", f"{manage}/installation/fetch/batch"): self.installations,
            ("POST", f"{manage}/installation/missing"): self.missing,
            **{("GET", f"{manage}/{kind}"): self.no_others for kind in OTHER_KINDS},
            ("POST", f"{manage}/install/upload/package"): self.upload,
            ("POST", f"{manage}/install/identifiers"): self.install,
            ("GET", f"{manage}/install/tasks"): lambda tenant: self._data(list(self.tasks[tenant].values())),
            ("GET", f"{manage}/install/tasks/<task_id>"): self.task,
            ("POST", f"{dispatch}/model/validate_model_credentials"): lambda tenant: self.stream(tenant, self.validate),
            ("POST", f"{dispatch}/model/schema"): lambda tenant: self.stream(tenant, self.schema),
            ("POST", f"{dispatch}/llm/invoke"): lambda tenant: self.stream(tenant, self.invoke),
            ("POST", f"{dispatch}/text_embedding/invoke"): lambda tenant: self.stream(tenant, self.embed),
            ("POST", f"{dispatch}/text_embedding/num_tokens"): lambda tenant: self.stream(tenant, self.count),
            ("POST", f"{dispatch}/rerank/invoke"): lambda tenant: self.stream(tenant, self.rerank),
        }
        for (method, rule), view in rules.items():
            app.add_url_rule(rule, f"{method} {rule}", view, methods=[method])
        app.before_request(self.admit)
        app.register_error_handler(DaemonError, lambda error: error.body())
        return app

    def admit(self) -> Any:
        """Refuse calls without the key; health and metrics are open."""
        self.counters["requests"] += 1
        if request.path.startswith("/plugin/") and not hmac.compare_digest(request.headers.get("X-Api-Key", ""), self.key):
            return {"code": -401, "message": "unauthorized", "data": None}, 401
        return None

    def metrics(self) -> Any:
        """Return the counters in Prometheus's form."""
        lines = [
            f"plugin_daemon_requests_total {self.counters['requests']}",
            f"plugin_daemon_invocation_failures_total {self.counters['failures']}",
            f"plugin_daemon_active_invocations {self.counters['streams']}",
            f"plugin_daemon_plugins_running {len(self.running)}",
        ]
        return Response("\n".join(lines) + "\n", mimetype="text/plain")

    def models(self, tenant: str) -> Any:
        """Return the providers of a tenant's plugins."""
        return self._data([self._entity(tenant, row) for row in self._installed(tenant) if row["plugin_unique_identifier"] in self.running])

    def plugins(self, tenant: str) -> list[Json]:
        """List a tenant's plugins, with every field that Dify reads; a plugin whose package is lost is left out."""
        found = []
        for row in self._installed(tenant):
            identifier = row["plugin_unique_identifier"]
            plugin, _, rest = identifier.partition(":")
            version, _, checksum = rest.partition("@")
            try:
                declaration = self.running.get(identifier) or decode(self.packages.load(identifier), must_be_signed=False)["manifest"]
            except LookupError:
                continue
            moment = row["created_at"].isoformat()
            common = {"id": row["id"], "created_at": moment, "updated_at": moment, "tenant_id": tenant, "installation_id": row["id"]}
            state = {"endpoints_setups": 0, "endpoints_active": 0, "runtime_type": "local", "source": "package", "meta": {}}
            names = {"plugin_id": plugin, "plugin_unique_identifier": identifier, "name": plugin.partition("/")[2]}
            found.append(common | state | names | {"version": version, "checksum": checksum, "declaration": declaration})
        return found

    def list_plugins(self, tenant: str) -> Any:
        """List a tenant's plugins, all on one page."""
        found = self.plugins(tenant)
        return self._data({"list": found, "total": len(found)})

    def list_category(self, tenant: str, category: str) -> Any:
        """List a tenant's plugins of a kind; the stand-in's are all of models."""
        return self._data({"list": self.plugins(tenant) if category == "model" else [], "has_more": False})

    def no_others(self, tenant: str) -> Any:
        """List a tenant's plugins of a kind that the stand-in does not run."""
        return self._data([])

    def known(self, name: str) -> bool:
        """Tell whether the storage has a package."""
        try:
            self.packages.load(name)
        except LookupError:
            return False
        return True

    def described(self) -> Json:
        """Return what the package that is asked for, uploaded before, says about itself."""
        name = request.args["plugin_unique_identifier"]
        try:
            return decode(self.packages.load(name), must_be_signed=False)
        except LookupError as error:
            raise DaemonError("PluginDaemonNotFoundError", str(error)) from error

    def installations(self, tenant: str) -> Any:
        """Return those of a tenant's plugins that are named."""
        wanted = request.get_json()["plugin_ids"]
        return self._data([plugin for plugin in self.plugins(tenant) if plugin["plugin_id"] in wanted])

    def missing(self, tenant: str) -> Any:
        """Return which of the named packages a tenant has not installed, and which version of them it has."""
        has = {row["plugin_unique_identifier"].partition(":")[0]: row["plugin_unique_identifier"] for row in self._installed(tenant)}
        wanted = request.get_json()["plugin_unique_identifiers"]
        absent = [name for name in wanted if name not in has.values()]
        return self._data([{"plugin_unique_identifier": name, "current_identifier": has.get(name.partition(":")[0])} for name in absent])

    def upload(self, tenant: str) -> Any:
        """Take a package in; it is not installed yet."""
        content = request.files["dify_pkg"].read()
        decoded = decode(content, self.signed)
        self.packages.save(decoded["unique_identifier"], content)
        LOG.info("package %s uploaded by %s", decoded["unique_identifier"], tenant)
        return self._data(decoded)

    def install(self, tenant: str) -> Any:
        """Install packages that were uploaded."""
        plugins = []
        for name in request.get_json()["plugin_unique_identifiers"]:
            try:
                self._launch(name)
            except LookupError as error:
                raise DaemonError("PluginDaemonNotFoundError", str(error)) from error
            with self.engine.begin() as connection:
                # A plugin is installed once: another version of it takes its place.
                older = "DELETE FROM plugin_installations WHERE tenant_id = :tenant AND split_part(plugin_unique_identifier, ':', 1) = :plugin"
                connection.execute(sa.text(older), {"tenant": tenant, "plugin": name.partition(":")[0]})
                statement = """INSERT INTO plugin_installations (id, tenant_id, plugin_unique_identifier) VALUES (:id, :tenant, :name)"""
                connection.execute(sa.text(statement), {"id": str(uuid.uuid4()), "tenant": tenant, "name": name})
            shown = {"icon": self.running[name]["icon"], "labels": self.running[name]["label"], "source": "package"}
            plugins.append({"plugin_unique_identifier": name, "plugin_id": name.partition(":")[0], "status": "success", "message": ""} | shown)
        moment = datetime.now(UTC).isoformat()
        task: Json = {
            "id": str(uuid.uuid4()),
            "created_at": moment,
            "updated_at": moment,
            "status": "success",
            "total_plugins": len(plugins),
            "completed_plugins": len(plugins),
            "plugins": plugins,
        }
        self.tasks[tenant][task["id"]] = task
        return self._data({"all_installed": False, "task_id": task["id"], "task": task})

    def task(self, tenant: str, task_id: str) -> Any:
        """Return how an installation went."""
        if task_id not in self.tasks[tenant]:
            raise DaemonError("PluginDaemonNotFoundError", f"task {task_id} not found")
        return self._data(self.tasks[tenant][task_id])

    def stream(self, tenant: str, work: Any) -> Any:
        """Answer with what a plugin yields, an event each; a failure is an event, too."""
        data = request.get_json()["data"]
        plugin = request.headers.get("X-Plugin-ID", "")

        def events() -> Iterator[str]:
            self.counters["streams"] += 1
            try:
                self._find(tenant, plugin)
                for item in work(data):
                    yield f"data: {json.dumps({'code': 0, 'message': '', 'data': item})}\n\n"
            except DaemonError as error:
                self.counters["failures"] += 1
                yield f"data: {json.dumps(error.body())}\n\n"
            finally:
                self.counters["streams"] -= 1

        return Response(events(), mimetype="text/event-stream")

    def validate(self, data: Json) -> Iterator[Json]:
        """Try a model's credentials with a question of its kind, as the plugin for OpenAI-compatible endpoints does."""
        if data["model_type"] == "text-embedding":
            self._embeddings(data, ["ping"])
        elif data["model_type"] == "rerank":
            self._ranks(data, "ping", ["ping"], None)
        else:
            with self._ask(data, "chat/completions", {"messages": [{"role": "user", "content": "ping"}], "max_tokens": 5, "stream": False}) as answer:
                answer.read()
        yield {"result": True, "credentials": data["credentials"]}

    def schema(self, data: Json) -> Iterator[Json]:
        """Describe a model."""
        label = {"en_US": data["model"], "zh_Hans": data["model"]}
        size = int(data["credentials"].get("context_size", 4096))
        kinds: dict[str, Json] = {"llm": {"mode": "chat"}, "text-embedding": {"max_chunks": 32}}
        properties = kinds.get(data["model_type"], {}) | {"context_size": size}
        yield {
            "model_schema": {
                "model": data["model"],
                "label": label,
                "model_type": data["model_type"],
                "fetch_from": "customizable-model",
                "features": [],
                "model_properties": properties,
                "parameter_rules": [],
            }
        }

    def invoke(self, data: Json) -> Iterator[Json]:
        """Have a model answer, by its endpoint's stream."""
        # Dify hands its own fields over, with null where there is nothing; an endpoint is sent what is said, and no more.
        messages = [{name: value for name, value in message.items() if value is not None} for message in data["prompt_messages"]]
        body = {"messages": messages, "stream": True, **(data.get("model_parameters") or {})}
        body |= {"stop": data["stop"]} if data.get("stop") else {}
        with self._ask(data, "chat/completions", body) as answer:
            for index, line in enumerate(answer.iter_lines()):
                text = line.removeprefix("data:").strip()
                if not line.startswith("data:") or text == "[DONE]":
                    continue
                for choice in json.loads(text).get("choices", []):
                    message: Json = {"role": "assistant", "content": choice["delta"].get("content") or "", "name": None, "tool_calls": []}
                    delta = {"index": index, "message": message, "usage": None, "finish_reason": choice.get("finish_reason")}
                    yield {"model": data["model"], "prompt_messages": [], "delta": delta}

    def embed(self, data: Json) -> Iterator[Json]:
        """Have a model embed texts."""
        vectors, tokens = self._embeddings(data, data["texts"])
        price = {"unit_price": "0", "price_unit": "0", "total_price": "0", "currency": "USD"}
        yield {"model": data["model"], "embeddings": vectors, "usage": {"tokens": tokens, "total_tokens": tokens, "latency": 0.0, **price}}

    def count(self, data: Json) -> Iterator[Json]:
        """Say about how many tokens texts have; the plugin knows no tokenizer of an endpoint's model."""
        yield {"num_tokens": [max(1, len(text) // 4) for text in data["texts"]]}

    def rerank(self, data: Json) -> Iterator[Json]:
        """Have a model sort documents by what they say about a question."""
        least = data.get("score_threshold")
        ranks = self._ranks(data, data["query"], data["docs"], data.get("top_n")) if data["docs"] else []
        docs = [{"index": rank["index"], "text": data["docs"][rank["index"]], "score": rank["relevance_score"]} for rank in ranks]
        yield {"model": data["model"], "docs": [doc for doc in docs if least is None or doc["score"] >= least]}

    def _embeddings(self, data: Json, texts: list[str]) -> tuple[list[list[float]], int]:
        with self._ask(data, "embeddings", {"input": texts, "encoding_format": "float"}) as answer:
            said = json.loads(answer.read())
        items = sorted(said["data"], key=lambda item: int(item["index"]))
        return [item["embedding"] for item in items], int((said.get("usage") or {}).get("total_tokens", 0))

    def _ranks(self, data: Json, query: str, docs: list[str], most: int | None) -> list[Json]:
        body = {"query": query, "documents": docs} | ({"top_n": most} if most else {})
        with self._ask(data, "rerank", body) as answer:
            ranks: list[Json] = json.loads(answer.read())["results"]
        return sorted(ranks, key=lambda rank: -float(rank["relevance_score"]))

    def _ask(self, data: Json, path: str, body: Json) -> Any:
        credentials = data["credentials"]
        url = f"{str(credentials.get('endpoint_url', '')).rstrip('/')}/{path}"
        headers = {"Authorization": f"Bearer {credentials['api_key']}"} if credentials.get("api_key") else {}
        return _Asked(
            self.client.stream("POST", url, headers=headers, json={"model": credentials.get("endpoint_model_name") or data["model"], **body})
        )

    def _find(self, tenant: str, plugin: str) -> None:
        installed = [row["plugin_unique_identifier"] for row in self._installed(tenant)]
        if not any(name in self.running for name in installed if name.startswith(f"{plugin}:")):
            raise DaemonError("PluginDaemonInternalServerError", f"no available node, plugin not found: {plugin}")

    def _launch(self, name: str) -> None:
        self.running[name] = decode(self.packages.load(name), must_be_signed=False)["manifest"]

    def _installed(self, tenant: str) -> Any:
        return self._rows("SELECT * FROM plugin_installations WHERE tenant_id = :tenant ORDER BY created_at", tenant=tenant)

    def _rows(self, statement: str, **values: Any) -> Any:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(statement), values).mappings()]

    def _entity(self, tenant: str, row: Json) -> Json:
        name = row["plugin_unique_identifier"]
        provider = self.running[name]["model"]
        moment = row["created_at"].isoformat()
        head = {"id": row["id"], "created_at": moment, "updated_at": moment, "tenant_id": tenant, "provider": provider["provider"]}
        return head | {"plugin_unique_identifier": name, "plugin_id": name.partition(":")[0], "declaration": provider}

    @staticmethod
    def _data(data: Any) -> Json:
        return {"code": 0, "message": "", "data": data}


class _Asked:
    """A call to a model's endpoint whose failures are told in the plugin's words."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def __enter__(self) -> Any:
        try:
            answer = self.call.__enter__()
        except httpx.HTTPError as error:
            raise DaemonError("PluginInvokeError", f"InvokeConnectionError: {error}") from error
        if answer.status_code >= 400:
            answer.read()
            self.call.__exit__(None, None, None)
            raise DaemonError(
                "PluginInvokeError", f"InvokeServerUnavailableError: API request failed with status code {answer.status_code}: {answer.text[:300]}"
            )
        return answer

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.call.__exit__(kind, error, trace)
        if isinstance(error, httpx.HTTPError):
            raise DaemonError("PluginInvokeError", f"InvokeConnectionError: {error}") from error


def main() -> None:
    """Serve until told to stop; streams that are open then get 30 s."""
    logging.basicConfig(level="INFO", stream=sys.stdout, format="%(asctime)s [%(levelname)s] %(message)s")
    check(os.environ)
    patch_psycopg()
    started = time.monotonic()
    server = WSGIServer(("0.0.0.0", int(os.environ.get("SERVER_PORT", "5002"))), Daemon(os.environ).application(), log=None)  # noqa: S104
    gevent.signal_handler(signal.SIGTERM, lambda: server.stop(timeout=30))
    LOG.info("stand-in for Dify's plugin daemon %s, ready after %.1f s, %s", VERSION, time.monotonic() - started, datetime.now(UTC).isoformat())
    server.serve_forever()


if __name__ == "__main__":
    main()
