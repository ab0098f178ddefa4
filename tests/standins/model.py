"""A model for the stand-in's tests: an OpenAI-compatible endpoint over plain HTTP that streams words, ten a second."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers chat completions; refuses every model but `assistant`."""

    def do_POST(self) -> None:
        """Answer one."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = [f"word{index} " for index in range(int(asked.get("max_tokens", 4)))]
        if asked["model"] != "assistant":
            self._send(404, b'{"error": "no such model"}')
        elif not asked.get("stream"):
            self._send(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "".join(words)}}]}).encode())
        else:
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
