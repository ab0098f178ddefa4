"""Stand-in for one vLLM instance: the OpenAI API for one model, over HTTPS, with the standard library only.

For role scenarios and the latency benchmark, where a real vLLM would take minutes to start and tell nothing more; the lab runs the real one.
It answers as vLLM does where the gateway in front depends on it: it serves only its own name (404 for others), the last of two equal JSON keys
wins, streams go out token by token, and a client that leaves ends its request. An answer tells which headers arrived here (`"stub"`).

Beside the API's own fields a body may hold `"stub_sleep"`: seconds to wait before the answer begins.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

MAX_BODY = 64 * 1024 * 1024
Json = dict[str, Any]


class ApiError(Exception):
    """A refusal in vLLM's form."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        """Keep what the answer needs."""
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Stub:
    """The server's state: what it serves, and how many requests it has seen."""

    model: str
    token_seconds: float
    counters: dict[str, int] = field(default_factory=lambda: {"running": 0, "requests": 0, "completed": 0, "aborted": 0})

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of one connection, one after the other."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while request := await read_request(reader):
                if not await self.answer(request, reader, writer):
                    break
        writer.close()

    async def answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection may be used again."""
        if request.method == "GET":
            await send(writer, *self.information(request.path))
            return True
        self.counters["requests"] += 1
        self.counters["running"] += 1
        # Nothing more comes from a client that waits for its answer: whatever can be read now means that it has left.
        gone = asyncio.create_task(reader.read(1))
        work = asyncio.create_task(self.complete(request, writer))
        end = "aborted"
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                return False
            work.result()
            end = "completed"
            return not gone.done() and not await pipelined(gone)
        finally:
            self.counters[end] += 1
            self.counters["running"] -= 1

    def information(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body of what can be read."""
        if path == "/health":
            return 200, "text/plain", b""
        if path == "/v1/models":
            model = {"id": self.model, "object": "model", "created": int(time.time()), "owned_by": "stub"}
            return 200, "application/json", encode({"object": "list", "data": [model]})
        if path == "/metrics":
            lines = [f'vllm:num_requests_running{{model_name="{self.model}"}} {self.counters["running"]}']
            lines += [f"stub_{name}_total {value}" for name, value in self.counters.items() if name != "running"]
            return 200, "text/plain", ("\n".join(lines) + "\n").encode()
        return 404, "application/json", encode({"detail": "Not Found"})

    async def complete(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer a completion, whole or streamed."""
        try:
            body = self.parse(request)
        except ApiError as error:
            await send(writer, error.status, "application/json", encode(error.body))
            return
        await asyncio.sleep(float(body.get("stub_sleep", 0)))
        chat = request.path == "/v1/chat/completions"
        words = [f"word{index} " for index in range(int(body.get("max_tokens", 4)))]
        if body.get("stream"):
            await send_stream(writer, self.chunks(chat, words))
            return
        text = "".join(words)
        choice: Json = {"index": 0, "finish_reason": "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 1, "completion_tokens": len(words), "total_tokens": 1 + len(words)}
        answer = self.envelope(chat, "") | {"choices": [choice], "usage": usage, "stub": {"headers": request.headers, "path": request.path}}
        await send(writer, 200, "application/json", encode(answer))

    def parse(self, request: Request) -> Json:
        """Return the body of a completion that this server would serve; raise ApiError where vLLM refuses it."""
        if request.path not in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            raise ApiError(404, "NotFoundError", "Not Found")
        try:
            body = json.loads(request.body)
        except ValueError as error:
            raise ApiError(400, "BadRequestError", f"JSON decode error: {error}") from error
        if not isinstance(body, dict):
            raise ApiError(400, "BadRequestError", "Input should be a valid dictionary")
        if body.get("model") != self.model:
            raise ApiError(404, "NotFoundError", f"The model `{body.get('model')}` does not exist.", "model")
        return body

    async def chunks(self, chat: bool, words: list[str]) -> AsyncIterator[bytes]:
        """Yield the events of a stream, one a token."""
        for index, word in enumerate(words):
            choice: Json = {"index": 0, "finish_reason": "length" if index == len(words) - 1 else None}
            choice |= {"delta": {"content": word}} if chat else {"text": word}
            yield b"data: " + encode(self.envelope(chat, ".chunk") | {"choices": [choice]}) + b"\n\n"
            await asyncio.sleep(self.token_seconds)
        yield b"data: [DONE]\n\n"

    def envelope(self, chat: bool, suffix: str) -> Json:
        """Return what every answer begins with."""
        kind = f"chat.completion{suffix}" if chat else "text_completion"
        return {"id": f"stub-{self.counters['requests']}", "object": kind, "created": int(time.time()), "model": self.model}


def encode(value: Json) -> bytes:
    """Return compact JSON, as vLLM writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


async def pipelined(read: asyncio.Task[bytes]) -> bool:
    """End the watch for a client that leaves; return whether it had read something after all."""
    read.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await read
        return True
    return False


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read one request; return None at the end of the connection."""
    line = await reader.readline()
    if not line.strip():
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    await read_fields(reader, headers)
    return Request(method, path, headers, await read_body(reader, headers))


async def read_fields(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
    """Read header fields, or trailers, up to the empty line behind them."""
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Read the body, by its length or in chunks; trailers become headers, as uvicorn has it."""
    if "chunked" not in headers.get("transfer-encoding", "").lower():
        return await reader.readexactly(min(int(headers.get("content-length", 0)), MAX_BODY))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await read_fields(reader, headers)
    return body


async def send(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes) -> None:
    """Send one whole answer."""
    writer.write(head(status, kind, f"content-length: {len(body)}") + body)
    await writer.drain()


async def send_stream(writer: asyncio.StreamWriter, chunks: AsyncIterator[bytes]) -> None:
    """Send an answer chunk by chunk."""
    writer.write(head(200, "text/event-stream; charset=utf-8", "transfer-encoding: chunked"))
    async for chunk in chunks:
        writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def head(status: int, kind: str, framing: str) -> bytes:
    """Return status line and headers."""
    return f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}\r\nserver: openai-stub\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode()


def tls(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    """Return a context that shows the certificate and asks for one of the authority's, as vLLM with `--ssl-cert-reqs 2` does."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until stopped."""
    stub = Stub(arguments.model, arguments.token_seconds)
    context = tls(arguments.certificate, arguments.key, arguments.authority)
    server = await asyncio.start_server(stub.connection, arguments.address, arguments.port, ssl=context, limit=1 << 20)
    print(f"Stand-in for vLLM (no model behind it): {arguments.model} at https://{arguments.address}:{arguments.port}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="A stand-in for vLLM that serves one model name")
    parser.add_argument("--model", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", default="/etc/sovereign/pki/host.crt")
    parser.add_argument("--key", default="/etc/sovereign/pki/host.key")
    parser.add_argument("--authority", default="/etc/sovereign/pki/ca.crt")
    parser.add_argument("--token-seconds", type=float, default=0.1, help="time between two tokens of a stream")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
