"""A webhook for alerts, as a firm's pager would have one: it notes what it is told and when, a line of JSON each.

``alert_receiver.py <address> <port> <file>``
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Receiver(BaseHTTPRequestHandler):
    """Notes the bodies of requests."""

    log: Path

    def do_POST(self) -> None:
        """Note a body as ``{"time": seconds since the epoch, "path": its path, "body": what Alertmanager says}``."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"time": time.time(), "path": self.path, "body": body}) + "\n")
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Leave the journal alone."""


if __name__ == "__main__":
    address, port, file = sys.argv[1:]
    Receiver.log = Path(file)
    ThreadingHTTPServer((address, int(port)), Receiver).serve_forever()
