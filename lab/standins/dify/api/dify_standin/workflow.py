"""Workflows: a chain of Dify's nodes start, llm, code, http-request and end, run one after the other."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

import httpx

from . import daemon, database
from .errors import ApiError
from .models import Models
from .services import Services
from .settings import SETTINGS

Json = dict[str, Any]
Emit = Callable[[Json], None]
NODE_TYPES = ("start", "llm", "code", "http-request", "end")
NEEDED = {
    "start": (),
    "llm": ("model.provider", "model.name", "model.mode", "prompt_template", "context.enabled"),
    "code": ("code_language", "code", "variables", "outputs"),
    "http-request": ("method", "url", "authorization", "headers", "params"),
    "end": ("outputs",),
}
"""Fields without which Dify's classes of nodes refuse one."""
PLACE = re.compile(r"\{\{#([\w-]+)\.([\w-]+)#\}\}")
APP_MODE = "workflow"

# What Dify's template puts around a user's function: inputs come in base64, the result goes out between two marks.
RUNNER = """\
{code}
import base64, json
inputs = json.loads(base64.b64decode("{inputs}"))
print("<<RESULT>>" + json.dumps(main(**inputs)) + "<<RESULT>>")
"""


def topic(run_id: str) -> str:
    """Return the name of a run's topic on the event bus."""
    return f"channel:{APP_MODE}:{run_id}"


def order(graph: Json) -> list[Json]:
    """Return a graph's nodes in the order in which they run.

    Raises:
        ApiError: It is no graph that this stand-in can run.
    """
    nodes = {node["id"]: node for node in graph.get("nodes", [])}
    for node in nodes.values():
        if node["data"].get("type") not in NODE_TYPES:
            raise ApiError(400, "invalid_param", f"the stand-in runs nodes of the types {', '.join(NODE_TYPES)}, not {node['data'].get('type')}")
    sorter = TopologicalSorter({name: {edge["source"] for edge in graph.get("edges", []) if edge["target"] == name} for name in nodes})
    try:
        ordered = [nodes[name] for name in sorter.static_order()]
    except (CycleError, KeyError) as error:
        raise ApiError(400, "invalid_param", f"the graph's edges are wrong: {error}") from error
    if not ordered or ordered[0]["data"]["type"] != "start":
        raise ApiError(400, "invalid_param", "Workflow must have a start node.")
    return ordered


def check(graph: Json) -> None:
    """Refuse nodes that lack what Dify's classes want, as these do: when a run begins, and not when the graph is saved or published.

    Raises:
        ApiError: A field is missing.
    """
    for node in graph.get("nodes", []):
        data = node["data"]
        for path in NEEDED.get(data.get("type"), ()):
            value: Any = data
            parts = path.split(".")
            for depth, part in enumerate(parts, start=1):
                value = value.get(part) if isinstance(value, dict) else None
                if value is None:
                    raise ApiError(400, "invalid_param", f"1 validation error for {data['type']}\n{'.'.join(parts[:depth])}\n  Field required")
        if data.get("type") == "start":
            for variable in data.get("variables", []):
                for name in ("variable", "label", "type"):
                    if name not in variable:
                        raise ApiError(400, "invalid_param", f"1 validation error for VariableEntity\n{name}\n  Field required")


class Run:
    """One run of a workflow, in the api for a blocking call and in a worker for a streaming one."""

    def __init__(self, services: Services, run_id: str, app: Json, inputs: Json, emit: Emit) -> None:
        """Prepare a run; `emit` takes each event."""
        self.services = services
        self.models = Models(services)
        self.id = run_id
        self.app = app
        self.inputs = inputs
        self.emit = emit
        self.values: dict[str, Json] = {}
        self.outputs: Json = {}

    def execute(self) -> Json:
        """Run all nodes and return the data of the event workflow_finished; between statements no connection is held."""
        started, error, steps = time.monotonic(), None, 0
        with self.services.engine.begin() as connection:
            workflow = database.first(
                connection,
                "SELECT * FROM workflows WHERE app_id = :app AND version = :version",
                app=self.app["id"],
                version=self.app["workflow_version"],
            )
            if not workflow:
                raise ApiError(400, "invalid_param", "Workflow not published")
            row = {"id": self.id, "app_id": self.app["id"], "status": "running", "inputs": json.dumps(self.inputs), "created_at": database.now()}
            database.insert(connection, "workflow_runs", row)
        head = {"id": self.id, "workflow_id": workflow["id"], "created_at": database.timestamp(row["created_at"])}
        self._event("workflow_started", head | {"inputs": self.inputs, "reason": "initial"})
        try:
            graph = json.loads(workflow["graph"])
            check(graph)
            for steps, node in enumerate(order(graph), start=1):
                self._node(steps, node)
        except (ApiError, httpx.HTTPError, KeyError, ValueError) as failure:
            error = str(failure) or type(failure).__name__
        status = "failed" if error else "succeeded"
        with self.services.engine.begin() as connection:
            statement = "UPDATE workflow_runs SET status = :status, outputs = :outputs, error = :error, finished_at = :now WHERE id = :id"
            database.execute(connection, statement, status=status, outputs=json.dumps(self.outputs), error=error, now=database.now(), id=self.id)
        finished = head | {
            "status": status,
            "outputs": self.outputs,
            "error": error,
            "elapsed_time": time.monotonic() - started,
            "total_tokens": 0,
            "total_steps": steps,
            "finished_at": int(time.time()),
            "exceptions_count": 0,
            "files": [],
        }
        self._event("workflow_finished", finished)
        return finished

    def _event(self, name: str, data: Json) -> None:
        self.emit({"event": name, "task_id": self.id, "workflow_run_id": self.id, "data": data})

    def _node(self, index: int, node: Json) -> None:
        data = node["data"]
        head = {"id": f"{self.id}-{index}", "node_id": node["id"], "node_type": data["type"], "title": data.get("title", ""), "index": index}
        self._event("node_started", head | {"created_at": int(time.time())})
        started = time.monotonic()
        work = {"start": self._start, "llm": self._llm, "code": self._code, "http-request": self._http, "end": self._end}[data["type"]]
        outputs = work(node["id"], data)
        self.values[node["id"]] = outputs
        self._event(
            "node_finished",
            head | {"status": "succeeded", "outputs": outputs, "elapsed_time": time.monotonic() - started, "finished_at": int(time.time())},
        )

    def _start(self, _node: str, data: Json) -> Json:
        for variable in data.get("variables", []):
            if variable.get("required") and variable["variable"] not in self.inputs:
                raise ApiError(400, "invalid_param", f"{variable['variable']} is required in input form")
        return dict(self.inputs)

    def _llm(self, node: str, data: Json) -> Json:
        messages = [{"role": part["role"], "content": self._filled(part["text"])} for part in data["prompt_template"]]
        text = ""
        for piece in self._answer(data["model"], messages):
            text += piece
            self.emit(
                {
                    "event": "text_chunk",
                    "task_id": self.id,
                    "workflow_run_id": self.id,
                    "data": {"text": piece, "from_variable_selector": [node, "text"]},
                }
            )
        return {"text": text}

    def _answer(self, model: Json, messages: list[Json]) -> Iterator[str]:
        credentials = self.models.lookup(self.app["tenant_id"], model["provider"], model["name"])
        return daemon.invoke(self.app["tenant_id"], model["provider"], model["name"], credentials, messages, model.get("completion_params") or {})

    def _code(self, _node: str, data: Json) -> Json:
        inputs = {variable["variable"]: self._selected(variable["value_selector"]) for variable in data.get("variables", [])}
        code = RUNNER.format(code=data["code"], inputs=base64.b64encode(json.dumps(inputs).encode()).decode())
        answer = httpx.post(
            f"{SETTINGS.CODE_EXECUTION_ENDPOINT.rstrip('/')}/v1/sandbox/run",
            headers={"X-Api-Key": SETTINGS.CODE_EXECUTION_API_KEY},
            json={"language": "python3", "code": code, "preload": "", "enable_network": True},
            timeout=60,
            trust_env=False,
        )
        if answer.status_code != 200:
            raise ApiError(
                500,
                "code_execution_error",
                f"Failed to execute code, got status code {answer.status_code}, please check if the sandbox service is running",
            )
        result = answer.json()["data"]
        if result["error"]:
            raise ApiError(500, "code_execution_error", result["error"])
        outputs: Json = json.loads(result["stdout"].split("<<RESULT>>")[1])
        return outputs

    def _http(self, _node: str, data: Json) -> Json:
        # Only through the proxy that keeps workflows away from private addresses, where there is one.
        mounts = {"http://": SETTINGS.SSRF_PROXY_HTTP_URL, "https://": SETTINGS.SSRF_PROXY_HTTPS_URL}
        with httpx.Client(
            mounts={scheme: httpx.HTTPTransport(proxy=url) for scheme, url in mounts.items() if url}, trust_env=False, timeout=60
        ) as client:
            answer = client.request(data.get("method", "get").upper(), self._filled(data["url"]))
        return {"status_code": answer.status_code, "body": answer.text, "headers": dict(answer.headers)}

    def _end(self, _node: str, data: Json) -> Json:
        self.outputs = {output["variable"]: self._selected(output["value_selector"]) for output in data.get("outputs", [])}
        return self.outputs

    def _selected(self, selector: list[str]) -> Any:
        node, name = selector
        return self.values[node][name]

    def _filled(self, text: str) -> str:
        return PLACE.sub(lambda found: str(self._selected([found[1], found[2]])), text)
