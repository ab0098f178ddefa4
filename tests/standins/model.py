"""Models for the stand-in's tests: an OpenAI-compatible endpoint over plain HTTP that streams words, ten a second, embeds and ranks."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers chat completions, embeddings and rankings; refuses every model but `assistant`, and messages with a name that is null."""

    def do_POST(self) -> None:
        """Answer one."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] != "assistant":
            self._send(404, b'{"error": "no such model"}')
        elif any(value is None for message in asked.get("messages", []) for value in message.values()):
            self._send(400, b'{"error": "null in a message"}')
        elif self.path.endswith("/embeddings"):
            data = [{"index": index, "embedding": [float(len(text)), 0.5]} for index, text in enumerate(asked["input"])]
            self._send(200, json.dumps({"data": data[::-1], "usage": {"total_tokens": 7}}).encode())
        elif self.path.endswith("/rerank"):
            results = [{"index": index, "relevance_score": 1 / len(text)} for index, text in enumerate(asked["documents"])]
            self._send(200, json.dumps({"results": results[: asked.get("top_n")]}).encode())
        else:
            self._chat(asked)

    def _chat(self, asked: dict[str, Any]) -> None:
        words = [f"word{index} " for index in range(int(asked.get("max_tokens", 4)))]
        if not asked.get("stream"):
            self._send(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "".join(words)}}]}).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in words:
            self._event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            time.sleep(0.1)
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()  # noqa: S104
