"""When a vLLM instance counts as ready, against servers that answer as vLLM does, or as it should not."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.role_program import load

vllm_ready = load("vllm", "vllm_ready")

OWN = Path("/proc/self")

Answers = dict[str, Callable[[dict[str, Any]], tuple[int, Any]]]

MODELS = {"/v1/models": lambda _: (200, {"data": [{"id": "assistant"}]})}
COMPLETES = {"/v1/completions": lambda asked: (200, {"model": asked["model"], "usage": {"completion_tokens": asked["max_tokens"]}})}
UNSUPPORTED = {"/v1/completions": lambda _: (400, {"error": {"message": "The model does not support Completions API"}})}
EMBEDS = {"/v1/embeddings": lambda asked: (200, {"model": asked["model"]})}


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], Any]]:
    started: list[ThreadingHTTPServer] = []

    def unknown(_: dict[str, Any]) -> tuple[int, Any]:
        return 404, {"detail": "Not Found"}

    def start(answers: Answers) -> Any:
        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, answer = answers.get(self.path, unknown)(json.loads(body or b"{}"))
                payload = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = respond  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return vllm_ready.Server("127.0.0.1", server.server_address[1], "localhost", None)

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_what_is_asked_has_several_tokens_as_processors_with_amx_need_at_first() -> None:
    assert all(len((question.get("prompt") or question["input"]).split()) > 2 for dummy, question in vllm_ready.QUESTIONS)


def test_a_token_makes_it_ready(serve: Callable[[Answers], Any]) -> None:
    assert vllm_ready.check(serve({**MODELS, **COMPLETES}), "assistant", 5).startswith("/v1/completions answered")


@pytest.mark.parametrize("completions", [{}, UNSUPPORTED])
def test_a_model_that_only_embeds_is_ready_when_it_embeds(serve: Callable[[Answers], Any], completions: Answers) -> None:
    assert vllm_ready.check(serve({**MODELS, **completions, **EMBEDS}), "assistant", 5).startswith("/v1/embeddings answered")


def test_health_alone_is_not_enough(serve: Callable[[Answers], Any]) -> None:
    with pytest.raises(vllm_ready.HopelessError, match="neither completions nor"):
        vllm_ready.check(serve({**MODELS, "/health": lambda _: (200, {})}), "assistant", 5)


def test_another_model_on_the_port_is_no_use(serve: Callable[[Answers], Any]) -> None:
    with pytest.raises(vllm_ready.HopelessError, match=r"serves \['assistant'\] instead of \['faq'\]"):
        vllm_ready.check(serve({**MODELS, **COMPLETES}), "faq", 5)


@pytest.mark.parametrize(
    "answers",
    [{**MODELS, "/v1/completions": lambda _: (500, {"error": "engine dead"})}, {"/v1/models": lambda _: (503, {})}],
)
def test_an_error_is_a_failed_canary(serve: Callable[[Answers], Any], answers: Answers) -> None:
    with pytest.raises(vllm_ready.CanaryError, match="answers 50"):
        vllm_ready.check(serve(answers), "assistant", 5)


def test_silence_is_a_failed_canary(serve: Callable[[Answers], Any]) -> None:
    def hang(_: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(1)
        return 200, {}

    with pytest.raises(vllm_ready.CanaryError, match="gives no answer: timed out"):
        vllm_ready.check(serve({**MODELS, "/v1/completions": hang}), "assistant", 0.2)


def test_a_refused_connection_means_that_it_starts() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(vllm_ready.StartingError):
            vllm_ready.check(vllm_ready.Server("127.0.0.1", free.getsockname()[1], "localhost", None), "assistant", 1)


def test_canaries_may_fail_only_so_often(serve: Callable[[Answers], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def fail(question: dict[str, Any]) -> tuple[int, Any]:
        asked.append(question)
        return 500, {}

    monkeypatch.setattr(vllm_ready, "POLL_S", 0)
    server = serve({**MODELS, "/v1/completions": fail})
    with pytest.raises(vllm_ready.HopelessError, match="3 canaries failed"):
        vllm_ready.wait(server, "assistant", 5, 3, OWN)
    assert len(asked) == 3


def test_one_failed_canary_is_forgiven(serve: Callable[[Answers], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(500, {}), (200, {"model": "assistant"})])
    monkeypatch.setattr(vllm_ready, "POLL_S", 0)
    assert "assistant is ready" in vllm_ready.wait(serve({**MODELS, "/v1/completions": lambda _: next(answers)}), "assistant", 5, 3, OWN)


def test_a_server_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    # systemd leaves ExecStartPost= running when the main process ends.
    with pytest.raises(vllm_ready.HopelessError, match="its server has ended"):
        vllm_ready.wait(vllm_ready.Server("127.0.0.1", 1, "localhost", None), "assistant", 5, 3, tmp_path / "gone")


def test_only_a_process_of_the_unit_counts_as_its_listener(serve: Callable[[Answers], Any], tmp_path: Path) -> None:
    server = serve({})
    assert vllm_ready.unit_listens("127.0.0.1", server.port)
    assert not vllm_ready.unit_listens("127.0.0.2", server.port)
    for name, group in (("self", "vllm@a.service"), ("7", "vllm@older.service")):
        (tmp_path / name / "fd").mkdir(parents=True)
        (tmp_path / name / "cgroup").write_text(f"12:cpu:/x/y/z/a/very/long/path/of/another/controller\n1:name=systemd:/\n0::/system.slice/{group}\n")
    inode = next(iter(vllm_ready.listening_inodes("127.0.0.1", server.port)))
    (tmp_path / "7/fd/3").symlink_to(f"socket:[{inode}]")
    assert not vllm_ready.unit_listens("127.0.0.1", server.port, tmp_path)
    (tmp_path / "7/cgroup").write_text("0::/system.slice/vllm@a.service/.control\n")
    assert vllm_ready.unit_listens("127.0.0.1", server.port, tmp_path)


@pytest.mark.parametrize(
    ("address", "entry"),
    [
        ("198.18.24.11", "0B1812C6:2133 00000000:0000 0A"),
        ("198.18.24.11", "00000000:2133 00000000:0000 0A"),
        ("fd00::1", "000000FD000000000000000001000000:2133 00000000000000000000000000000000:0000 0A"),
    ],
)
@pytest.mark.skipif(sys.byteorder == "big", reason="the kernel's table is in the machine's byte order")
def test_the_kernels_table_is_read(tmp_path: Path, address: str, entry: str) -> None:
    table = tmp_path / "tcp"
    table.write_text(f"  sl  local_address rem_address   st …\n   0: {entry} 00000000:00000000 00:00000000 00000000  0 0 4711 1\n")
    assert vllm_ready.listening_inodes(address, 8499, (table,)) == {"4711"}
    table.write_text(table.read_text().replace(" 0A ", " 01 "))
    assert vllm_ready.listening_inodes(address, 8499, (table,)) == set()
