"""Open pages in Chromium as their readers do, and print what is seen: run on the host with the browser.

Reads from standard input ``{"url", "user", "password", "visits": [{"hash", "width", "height", "scheme", "file", "run"}]}``: visits are made one after
the other, each as a page that is loaded anew, with the size and the colour scheme of its screen. ``file`` is where its screenshot goes; ``run`` is
JavaScript that is run once all is drawn. Prints a list with what each visit has shown.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import websocket

PORT = 9222
LIMIT_S = 60.0
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server", "--remote-allow-origins=*"),
    # The tests with curl verify the certificate.
    *("--ignore-certificate-errors", f"--remote-debugging-port={PORT}"),
)
DRAWN = """
document.body && document.body.dataset.refreshed
  && [...document.querySelectorAll('.panel')].every((one) => one.dataset.drawn || one.matches('.stale'))
"""
SEEN = """
((screenWidth) => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const panels = (kind) => all(`.panel[data-drawn=${kind}]`).map((one) => one.getAttribute('aria-label'));
  const wide = all('body *').filter((one) => one.getBoundingClientRect().right > screenWidth + 1 && !one.closest('.scroll, .hidden'));
  return {
    title: document.title,
    headings: all('h1, h2').map((one) => one.textContent),
    hosts: Object.fromEntries(all('[data-host]').map((one) => [one.dataset.host, one.querySelector('.badge').textContent])),
    services: Object.fromEntries(all('[data-service]').map((one) => [one.dataset.service, one.textContent])),
    alerts: all('[data-alert]').filter((one) => !one.closest('.more')).map((one) => [one.dataset.severity, one.dataset.alert, one.textContent]),
    kinds: all('.panel[data-drawn=data]').map((one) => one.dataset.kind),
    drawn: panels('data'), empty: panels('empty'), failed: panels('error'),
    verdict: document.querySelector('.verdict')?.textContent, level: document.querySelector('.verdict')?.dataset.level,
    trouble: document.getElementById('trouble')?.textContent, freshness: document.getElementById('freshness')?.textContent,
    overflow: document.documentElement.scrollWidth - screenWidth, wide: wide.map((one) => `${one.tagName}.${one.getAttribute('class')}`).slice(0, 5),
    ground: getComputedStyle(document.body).backgroundColor, elsewhere: performance.getEntriesByType('resource').map((one) => one.name),
    unnamed: all('select, button, a, svg[role=img]')
      .filter((one) => !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)).map((one) => one.outerHTML.slice(0, 80)),
  };
})(%d)
"""


class Page:
    """A page of the browser, by the DevTools protocol."""

    def __init__(self, address: str, user: str, password: str) -> None:
        """Connect to it."""
        self._socket = websocket.create_connection(address, timeout=LIMIT_S, suppress_origin=True)
        self._number = 0
        self._login = {"response": "ProvideCredentials", "username": user, "password": password}
        self._offered: set[str] = set()
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method, and wait for its result; what happens meanwhile is seen to."""
        number = self._send(method, **parameters)
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self._event(message.get("method", ""), message.get("params", {}))

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def _send(self, method: str, **parameters: Any) -> int:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        return self._number

    def _event(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Fetch.requestPaused":
            self._send("Fetch.continueRequest", requestId=parameters["requestId"])
        elif method == "Fetch.authRequired":
            # Once for a request, as somebody does who has one password.
            again = parameters["requestId"] in self._offered
            self._offered.add(parameters["requestId"])
            answer = {"response": "CancelAuth"} if again else self._login
            self._send("Fetch.continueWithAuth", requestId=parameters["requestId"], authChallengeResponse=answer)
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one.get("description"))) for one in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")


def visit(page: Page, url: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Load the page anew, wait until all is drawn, and look."""
    page.call("Page.navigate", url="about:blank")
    size = {"width": wanted.get("width", 1280), "height": wanted.get("height", 900), "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": wanted.get("scheme", "light")}])
    page.complaints.clear()
    started = time.monotonic()
    page.call("Page.navigate", url=f"{url}{wanted.get('hash', '')}")
    while not page.value(DRAWN):
        if time.monotonic() - started > LIMIT_S:
            break
        time.sleep(0.2)
    seconds = round(time.monotonic() - started, 1)
    ran = page.value(wanted["run"]) if "run" in wanted else None
    found = {**page.value(SEEN % size["width"]), "seconds": seconds, "ran": ran, "complaints": list(page.complaints)}
    if "file" in wanted:
        picture = page.call("Page.captureScreenshot", captureBeyondViewport=not wanted.get("viewport", False))
        Path(wanted["file"]).write_bytes(base64.b64decode(picture["data"]))
    return found


def main() -> None:
    """Make the visits."""
    asked = json.load(sys.stdin)
    # Its processes may still write there when it is gone.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            page = Page(_address(), asked["user"], asked["password"])
            for domain in ("Page", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            page.call("Fetch.enable", handleAuthRequests=True)
            print(json.dumps([visit(page, asked["url"], one) for one in asked["visits"]]))
        finally:
            browser.terminate()
            browser.wait(10)


def _address() -> str:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/json", timeout=5) as answer:
                return str(next(one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page"))
        except (OSError, StopIteration):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
