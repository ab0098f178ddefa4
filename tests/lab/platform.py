"""Dify as its users meet it: through the site's entry, over TLS, by application keys; and its console, to make applications."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter

from lab.standins.dify.graph import workflow_graph
from lab.testing import PROJECT
from tests.lab.conftest import STATE, container, execute, wait_until

NAME, ADDRESS = "ai.hq.lab.internal", "198.18.1.10"
HOSTS = ("hq-app1", "hq-app2")
PROVIDER = "langgenius/openai_api_compatible/openai_api_compatible"
EMAIL = "admin@lab.internal"
STUB_PORT = 18000
# Models, with the seconds from one word to the next, for as long as they are asked to talk: what is measured is Dify, and not the model.
PACES = {"slow": 1.0, "calm": 0.5, "brisk": 0.1}
STUB = (
    f"""
PACES = {PACES}
"""
    + """
import json, socketserver, sys, time
from http.server import BaseHTTPRequestHandler
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words, pause = int(body.get("max_tokens", 4)), PACES[body["model"]]
        self.send_response(200)
        self.send_header("Connection", "close")
        self.close_connection = True
        if not body.get("stream"):
            answer = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}}]}).encode()
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            return
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for index in range(words):
            delta = {"choices": [{"index": 0, "delta": {"content": f"word{index} "}}]}
            self.wfile.write(b"data: " + json.dumps(delta).encode() + b"\\n\\n")
            self.wfile.flush()
            # Names of conversations come at once.
            if words > 8:
                time.sleep(pause)
        self.wfile.write(b"data: [DONE]\\n\\n")
class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 256
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
)


class Pinned(HTTPAdapter):
    """Connects to an address, and expects the entry's certificate there."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Name the entry in the handshake, and in the check."""
        super().init_poolmanager(*arguments, **options, server_hostname=NAME, assert_hostname=NAME)


def session() -> requests.Session:
    """Give a session with the entry."""
    found = requests.Session()
    found.mount("https://", Pinned(pool_maxsize=1))
    found.verify = str(STATE / "pki/sites/hq/ca.crt")
    found.headers["Host"] = NAME
    found.trust_env = False
    return found


@dataclass
class Answer:
    """What came of one question.

    Attributes:
        status: HTTP's status; 0 where there was no answer.
        started: When it was asked, by the monotonic clock.
        first: Seconds to the first piece of the answer; of a whole one, to all of it.
        ended: Seconds to the end.
        pieces: Pieces of the answer.
        moments: Seconds to each of them.
        error: What went wrong, if anything did.
        retry_after: What a refusal said of when to come again.
    """

    status: int = 0
    started: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    pieces: int = 0
    error: str = ""
    retry_after: str = ""
    events: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all of the answer came."""
        return self.status == 200 and not self.error


def ask(path: str, key: str, body: dict[str, Any], timeout: float = 120, base: str = f"https://{ADDRESS}") -> Answer:
    """Ask a question by an application's key, and read the answer to its end."""
    answer = Answer(started=time.monotonic())
    streaming = body.get("response_mode") == "streaming"
    try:
        with session().post(f"{base}{path}", json=body, headers={"Authorization": f"Bearer {key}"}, stream=True, timeout=(10, timeout)) as response:
            answer.status = response.status_code
            answer.retry_after = response.headers.get("Retry-After", "")
            if not streaming or response.status_code != 200:
                response.content  # noqa: B018 - reads it
                answer.first = time.monotonic() - answer.started
            else:
                _read(response, answer, timeout)
    except requests.RequestException as error:
        answer.error = f"{type(error).__name__}: {error}"[:300]
    answer.ended = time.monotonic() - answer.started
    return answer


def _read(response: requests.Response, answer: Answer, timeout: float) -> None:
    ends = False
    # Whatever has come, at once: a byte at a time costs the two cores more than the platform's own share of a stream.
    for line in response.iter_lines(chunk_size=None):
        # Pings come for as long as somebody listens.
        if time.monotonic() - answer.started > timeout:
            answer.error = f"no end in {timeout:.0f} s"
            return
        if not line.startswith(b"data:"):
            continue
        event = json.loads(line.removeprefix(b"data:"))
        answer.events.append(event["event"])
        if event["event"] in ("message", "text_chunk"):
            answer.pieces += 1
            answer.moments.append(time.monotonic() - answer.started)
            if answer.pieces == 1:
                answer.first = time.monotonic() - answer.started
        elif event["event"] == "error":
            answer.error = str(event.get("message"))[:300]
        ends |= event["event"] in ("message_end", "workflow_finished")
        if event["event"] == "workflow_finished" and event["data"]["status"] != "succeeded":
            answer.error = str(event["data"].get("error"))[:300]
    if not ends and not answer.error:
        answer.error = "cut off"


def chat(key: str, mode: str = "streaming", **options: Any) -> Answer:
    """Ask a chat application."""
    return ask("/v1/chat-messages", key, {"inputs": {}, "query": "Hello", "user": "u", "response_mode": mode}, **options)


def workflow(key: str, mode: str = "streaming", **options: Any) -> Answer:
    """Run a workflow application."""
    return ask("/v1/workflows/run", key, {"inputs": {"query": "hello"}, "user": "u", "response_mode": mode}, **options)


class Console:
    """The console, as the administrator that the role has made."""

    def __init__(self) -> None:
        """Log in."""
        self.session = session()
        password = (STATE / "secrets/dify/admin_password").read_text().strip()
        self.ask("POST", "login", json={"email": EMAIL, "password": base64.b64encode(password.encode()).decode()})
        (token,) = [cookie.value for cookie in self.session.cookies if cookie.name.endswith("csrf_token")]
        self.session.headers["X-CSRF-Token"] = str(token)

    def ask(self, method: str, path: str, **arguments: Any) -> Any:
        """Ask for something and return the answer's JSON."""
        answer = self.session.request(method, f"https://{ADDRESS}/console/api/{path}", timeout=60, **arguments)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def key(self, app: str) -> str:
        """Make a key of an application."""
        token: str = self.ask("POST", f"apps/{app}/api-keys")["token"]
        return token

    def chat(self, model: str = "assistant", tokens: int = 12) -> str:
        """Make a chat application and return a key of it."""
        app = self.ask("POST", "apps", json={"name": f"chat {model} {tokens}", "mode": "chat"})
        chosen = {"provider": PROVIDER, "name": model, "mode": "chat", "completion_params": {"max_tokens": tokens}}
        self.ask("POST", f"apps/{app['id']}/model-config", json={"model": chosen})
        return self.key(app["id"])

    def workflow(self, model: str = "assistant", tokens: int = 8) -> str:
        """Make and publish a workflow that calls the sandbox and a model, and return a key of it."""
        app = self.ask("POST", "apps", json={"name": "flow", "mode": "workflow"})
        graph = workflow_graph(PROVIDER, model, tokens)
        self.ask("POST", f"apps/{app['id']}/workflows/draft", json={"graph": graph, "features": {}})
        self.ask("POST", f"apps/{app['id']}/workflows/publish", json={})
        return self.key(app["id"])

    def stub(self) -> None:
        """Start the models that only take their time, on each host, and register them."""
        for host in HOSTS:
            execute(host, "sh", "-c", "cat > /run/slow_model.py", stdin=STUB)
            execute(host, "systemctl", "stop", "slow_model", check=False)
            execute(host, "systemd-run", "--quiet", "--collect", "--unit=slow_model", "python3", "/run/slow_model.py", str(STUB_PORT))
            listens = f"ss --no-header --listening --tcp --numeric 'sport = :{STUB_PORT}' | grep -q ."
            wait_until(lambda: execute(host, "sh", "-c", listens, check=False).returncode == 0, f"the models of {host} listen", 30)  # noqa: B023
        path = f"workspaces/current/model-providers/{PROVIDER}/models/credentials"
        given = {"endpoint_url": f"http://127.0.0.1:{STUB_PORT}/v1", "api_key": "none", "mode": "chat", "context_size": "4096"}
        for model in PACES:
            if not self.ask("GET", f"{path}?model={model}&model_type=llm")["current_credential_id"]:
                self.ask("POST", path, json={"model": model, "model_type": "llm", "name": model, "credentials": given})


def at_once(count: int, question: Callable[[], Answer]) -> list[Answer]:
    """Ask so many questions at the same time, and give all answers."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(question())) for dummy in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


class Stock:
    """One more api on a host, with the settings that upstream ships: one process, ten connections, a pool of 30+10."""

    HOST, NAME, PORT = "hq-app1", "dify_stock", 5199
    SETTINGS: ClassVar = {"SERVER_WORKER_AMOUNT": 1, "SERVER_WORKER_CONNECTIONS": 10, "SQLALCHEMY_POOL_SIZE": 30, "SQLALCHEMY_MAX_OVERFLOW": 10}

    def __enter__(self) -> Stock:
        """Start it, as the unit of the host's own api does."""
        image = execute(self.HOST, "podman", "inspect", "--format", "{{.ImageName}}", "dify_api_1").stdout.strip()
        given = [f"--env={name}={value}" for name, value in {**self.SETTINGS, "DIFY_BIND_ADDRESS": "127.0.0.1", "DIFY_PORT": self.PORT}.items()]
        options = [
            "--network=host",
            "--cgroups=disabled",
            "--env-file=/etc/dify/dify_api_1.env",
            "--volume=/etc/sovereign/pki/ca.crt:/etc/sovereign/pki/ca.crt:ro",
        ]
        execute(self.HOST, "podman", "run", "--detach", "--rm", "--replace", f"--name={self.NAME}", *options, *given, image, timeout=120)
        health = f"http://127.0.0.1:{self.PORT}/health"
        wait_until(lambda: execute(self.HOST, "curl", "-sf", "-m", "2", health, check=False).returncode == 0, "the stock api answers", 90)
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove it."""
        execute(self.HOST, "podman", "rm", "--force", "--time", "1", self.NAME, timeout=60)

    def ask(self, key: str, clients: int, seconds: float) -> list[Answer]:
        """Ask chats of it, from within its host's network: its own firewall lets nobody else in."""
        pid = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.Pid}}", container(self.HOST)], capture_output=True, text=True, check=True
        ).stdout.strip()
        command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-m", "tests.lab.platform", f"http://127.0.0.1:{self.PORT}"]
        run = subprocess.run(
            [*command, str(clients), str(seconds)], input=key, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=seconds + 120
        )
        return [Answer(**answer) for answer in json.loads(run.stdout)]


def chats_for(seconds: float, clients: int, key: str, base: str = f"https://{ADDRESS}") -> list[Answer]:
    """Let so many clients ask a chat, one after another, for some seconds."""
    users = Steady(lambda: chat(key, base=base), clients=clients, pause=0)
    time.sleep(seconds)
    return users.end()


def per_second(answers: list[Answer]) -> float:
    """Give how many answers ended in a second, from the first question to the last answer."""
    answered = [answer for answer in answers if answer.ok]
    return len(answered) / (max(answer.started + answer.ended for answer in answered) - min(answer.started for answer in answered))


class Arrivals:
    """Asks a question at fixed times, whatever becomes of those before: as users do, who do not wait for each other."""

    def __init__(self, question: Callable[[], Answer], every: float = 0.5) -> None:
        """Begin."""
        self.answers: list[Answer] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

        def run() -> None:
            while not self._over.wait(every):
                thread = threading.Thread(target=lambda: self.answers.append(question()), daemon=True)
                self._threads.append(thread)
                thread.start()

        self._clock = threading.Thread(target=run, daemon=True)
        self._clock.start()

    def end(self) -> list[Answer]:
        """Stop and give all answers, in the order of their questions."""
        self._over.set()
        self._clock.join()
        for thread in self._threads:
            thread.join(180)
        return sorted(self.answers, key=lambda answer: answer.started)


class Steady:
    """Asks one question after another, in several threads, until told to stop."""

    def __init__(self, question: Callable[[], Answer], clients: int = 2, pause: float = 0.2, apart: float = 0) -> None:
        """Begin; with some seconds between one client and the next."""
        self.answers: list[Answer] = []
        self._over = threading.Event()

        def run(number: int) -> None:
            self._over.wait(number * apart)
            while not self._over.is_set():
                self.answers.append(question())
                time.sleep(pause)

        self._threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> list[Answer]:
        """Stop and give all answers, in the order of their questions."""
        self._over.set()
        for thread in self._threads:
            thread.join(180)
        return sorted(self.answers, key=lambda answer: answer.started)


def most_at_once(answers: list[Answer]) -> int:
    """Give how many answers were being written at the same time, at most: from the first piece to the last."""
    moments = [(answer.started + answer.first, 1) for answer in answers if answer.pieces]
    moments += [(answer.started + answer.ended, -1) for answer in answers if answer.pieces]
    return max(itertools.accumulate(change for dummy, change in sorted(moments)), default=0)


def longest_gap(answers: list[Answer]) -> float:
    """Give the longest time in which nobody asked a question that was then answered, in seconds."""
    asked = sorted(answer.started for answer in answers if answer.ok)
    return max((latter - former for former, latter in itertools.pairwise(asked)), default=float("inf"))


def flask(*command: str, host: str = "hq-app1") -> str:
    """Run a command of the api's image, in the api's first container on a host."""
    return execute(host, "podman", "exec", "dify_api_1", "flask", *command, timeout=180).stdout


def ledger() -> list[dict[str, Any]]:
    """Give the stand-in's ledger of tasks."""
    rows: list[dict[str, Any]] = json.loads(flask("ledger").splitlines()[-1])
    return rows


def leader(service: str) -> Iterator[str]:
    """Give the host of a data service's leader."""
    questions = {
        "patroni": ["su", "-s", "/bin/sh", "postgres", "-c", "psql -Atc 'select not pg_is_in_recovery()' | grep -q t"],
        "redis": ["sh", "-c", "redis-admin role | head -1 | grep -q master"],
    }
    for host in ("hq-db1", "hq-db2", "hq-db3"):
        if execute(host, *questions[service], check=False).returncode == 0:
            yield host


DIFY_PROXY, GATEWAY_SOCKET = "/run/dify_proxy/admin.sock", "/run/haproxy/admin.sock"
ASK_HAPROXY = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(sys.argv[2].encode() + b"\\n")
    print(b"".join(iter(lambda: connection.recv(65536), b"")).decode())
"""


def ask_haproxy(host: str, path: str, command: str) -> str:
    """Give what the HAProxy behind a host's socket answers to a command."""
    return execute(host, "python3", "-", path, command, stdin=ASK_HAPROXY).stdout


def open_streams(host: str) -> int:
    """Count the requests that a host's api has."""
    rows = [line.split(",") for line in ask_haproxy(host, DIFY_PROXY, "show stat").splitlines()]
    return sum(int(row[4] or 0) for row in rows if row[0] in ("api", "api_reserved") and row[1].startswith("dify_api"))


if __name__ == "__main__":
    base_url, client_count, duration = sys.argv[1:]
    print(json.dumps([asdict(answer) for answer in chats_for(float(duration), int(client_count), sys.stdin.read().strip(), base_url)]))
