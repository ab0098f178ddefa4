"""Stand-in for Dify's sandbox: runs Python in a process of its own, with a time limit and without the seccomp cage of the real one."""

from __future__ import annotations

import hmac
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = os.environ.get("API_KEY", "")
SECONDS = int(os.environ.get("WORKER_TIMEOUT", "15"))
# max_workers and max_requests of the real one's configuration: beyond the first a request waits, beyond the second it is refused.
WORKERS = threading.Semaphore(int(os.environ.get("MAX_WORKERS", "4")))
REQUESTS = threading.Semaphore(int(os.environ.get("MAX_REQUESTS", "50")))


def run(code: str, network: bool) -> tuple[str, str]:
    """Run a Python program.

    Args:
        code: The program.
        network: Whether it gets the proxy's address.

    Returns:
        What it printed, and its error.
    """
    passed = {name: os.environ[name] for name in ("HTTP_PROXY", "HTTPS_PROXY") if network and name in os.environ}
    with tempfile.TemporaryDirectory() as directory:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-"], input=code, env=passed, cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return "", "error: timeout\n"
    return done.stdout, done.stderr


class Handler(BaseHTTPRequestHandler):
    """Serves the sandbox's two routes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer /health."""
        if self.path == "/health":
            self._answer(200, "ok")
        else:
            self._answer(404, {"code": -404, "message": "not found", "data": None})

    def do_POST(self) -> None:
        """Answer /v1/sandbox/run."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path != "/v1/sandbox/run":
            self._answer(404, {"code": -404, "message": "not found", "data": None})
        elif not KEY or not hmac.compare_digest(self.headers.get("X-Api-Key", ""), KEY):
            self._answer(401, {"code": -401, "message": "Unauthorized", "data": None})
        elif not REQUESTS.acquire(blocking=False):
            self._answer(503, {"code": -503, "message": "Too many requests", "data": None})
        else:
            try:
                with WORKERS:
                    self._answer(200, self._run(body))
            finally:
                REQUESTS.release()

    def _run(self, body: bytes) -> Any:
        try:
            wanted = json.loads(body)
            if wanted["language"] != "python3":
                return {"code": -400, "message": "the stand-in runs python3 only", "data": None}
            network = bool(wanted.get("enable_network")) and os.environ.get("ENABLE_NETWORK", "true").lower() == "true"
            stdout, error = run(f"{wanted.get('preload') or ''}\n{wanted['code']}", network)
        except (ValueError, KeyError, TypeError) as mistake:
            return {"code": -400, "message": str(mistake), "data": None}
        return {"code": 0, "message": "success", "data": {"stdout": stdout, "error": error}}

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve until stopped."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    if not KEY:
        sys.exit("API_KEY is empty: the stand-in, unlike upstream, has no public default")
    port = int(os.environ.get("SANDBOX_PORT", "8194"))
    print(f"stand-in for Dify's sandbox on port {port}", flush=True)
    ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()  # noqa: S104


if __name__ == "__main__":
    main()
