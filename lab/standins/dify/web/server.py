"""Stand-in for Dify's web: pages at its paths, which say what they are."""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = (Path(__file__).parent / "VERSION").read_text().strip()
PAGES = ("/apps", "/explore", "/signin", "/install", "/datasets", "/plugins", "/tools", "/account", "/chat", "/workflow")
# What upstream's start script hands to the browser.
SHOWN = ("CONSOLE_API_URL", "APP_API_URL", "MARKETPLACE_API_URL", "NEXT_PUBLIC_SOCKET_URL")
PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>Dify (stand-in)</title></head>
<body data-version="{version}" data-settings='{settings}'>
<p>This is the lab's stand-in for Dify's web {version}: there is nothing to click.</p>
</body></html>
"""


class Handler(BaseHTTPRequestHandler):
    """Serves the pages."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a page, its redirection, or that there is none."""
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(307, b"", Location="/apps")
        elif path.startswith(PAGES):
            settings = json.dumps({name: os.environ.get(name, "") for name in SHOWN})
            self._answer(200, PAGE.format(version=VERSION, settings=settings).encode())
        else:
            self._answer(404, b"not found\n")

    do_HEAD = do_GET  # noqa: N815  (the server looks for these names)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main() -> None:
    """Serve until stopped."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    address = ("0.0.0.0", int(os.environ.get("PORT", "3000")))  # noqa: S104
    print(f"stand-in for Dify's web {VERSION} on port {address[1]}", flush=True)
    ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    main()
