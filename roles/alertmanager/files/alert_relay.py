# Ansible managed
"""Hands Alertmanager's notifications to the robots of chat groups, whose bodies Alertmanager cannot write: Feishu, DingTalk, WeCom.

Alertmanager posts its webhook's body to ``/<receiver>``. A robot answers HTTP 200 whatever became of the message, with a code in its body; here that
code becomes a status that Alertmanager understands: 5xx, and it tries again at once; 4xx, and it tries again with the group's next notification.

Formats, limits and codes:

- Feishu: https://open.feishu.cn/document/ukTMukTMukTM/ucTM5YjL3ETO24yNxkjN. Card (JSON 1.0); ``timestamp`` in seconds and ``sign`` in the body;
  20 KB, 100 messages a minute and 5 a second.
- DingTalk: https://open.dingtalk.com/document/robots/custom-robot-access. Markdown; ``timestamp`` in milliseconds and ``sign`` in the query;
  20000 bytes, 20 messages a minute.
- WeCom: https://developer.work.weixin.qq.com/document/path/91770. Markdown of 4096 bytes; 20 messages a minute.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

MAX_REQUEST = 4 * 1024 * 1024
"""Bytes of a notification. Alertmanager sends 50 alerts at most."""
MAX_ANSWER = 64 * 1024
"""Bytes that are read of a robot's answer."""
MAX_ALERTS = 20
"""Alerts that are written out in one message."""
MAX_LINE, MAX_TITLE = 400, 120
"""Characters of one line, and of a title."""
MAX_BODY, MAX_WECOM = 18_000, 4096
"""Bytes of a body for Feishu and DingTalk, a little below their limits, and of WeCom's text."""
REQUEST_SECONDS = 10.0
"""Seconds for which Alertmanager's request is waited for."""
SEVERITIES = ("critical", "warning", "info")
COLOURS = {"critical": "red", "warning": "orange", "info": "blue", "resolved": "green"}
"""Feishu's colours of a card's header."""
WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "title": "[Alert] {state}{count}: {name}{where}",
        "where": " ({})",
        "between": ", ",
        "critical": "CRITICAL",
        "warning": "WARNING",
        "info": "INFO",
        "resolved": "RESOLVED",
        "line": "{}: {}",
        "instance": "Host",
        "since": "Since",
        "until": "Until",
        "runbook": "Runbook",
        "more": "… and {} more",
    },
    "zh": {
        "title": "【告警】{state}{count}：{name}{where}",
        "where": "（{}）",
        "between": "，",
        "critical": "严重",
        "warning": "警告",
        "info": "提示",
        "resolved": "已恢复",
        "line": "{}：{}",
        "instance": "主机",
        "since": "开始时间",
        "until": "恢复时间",
        "runbook": "处理手册",
        "more": "…… 另有 {} 条",
    },
}
BUSY_CODES: Mapping[str, frozenset[int]] = {
    # Frequency limit; internal error.
    "feishu": frozenset({11232, 2200}),
    # System busy; more than 20 messages a minute, by either name.
    "dingtalk": frozenset({-1, 130101, 410100}),
    # System busy; frequency limit; too many at once.
    "wecom": frozenset({-1, 45009, 45033}),
}
"""Codes of an answer that will be another one later. Of all others only an operator can get rid."""
BUSY_WORDS = re.compile(r"frequency|\bfreq\b|too fast|too many|rate limit|busy|限流|频率|繁忙|太快", re.IGNORECASE)
"""What the text of such an answer says, for codes that are not listed: Feishu gives 9499 for a frequency limit and for a malformed body."""


class NotDeliveredError(Exception):
    """A notification has not reached its robot.

    Attributes:
        status: HTTP status for Alertmanager.
    """

    def __init__(self, status: int, reason: str) -> None:
        """Keep the status and the reason."""
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Receiver:
    """One robot.

    Attributes:
        name: Name of Alertmanager's receiver.
        kind: ``feishu``, ``dingtalk`` or ``wecom``.
        url: Address of the robot, which holds its key.
        secret: Key of the signature; empty where the robot asks for none.
        proxy: Address of an HTTP proxy; empty for none.
    """

    name: str
    kind: str
    url: str
    secret: str = ""
    proxy: str = ""

    def hide(self, text: str) -> str:
        """Take everything that must stay secret out of a text that will be logged."""
        address, proxy = urlsplit(self.url), urlsplit(self.proxy)
        secrets = [
            self.url,
            self.secret,
            proxy.password or "",
            address.path.rpartition("/")[2],
            *(value for dummy, value in parse_qsl(address.query)),
        ]
        for secret in sorted((secret for secret in secrets if len(secret) >= 6), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


@dataclass(frozen=True)
class Settings:
    """What the program is started with.

    Attributes:
        address: Address to listen at.
        port: Port to listen at.
        language: ``en`` or ``zh``.
        timeout: Seconds that a robot may take for its whole answer.
        receivers: Robots by their names.
    """

    address: str
    port: int
    language: str
    timeout: float
    receivers: Mapping[str, Receiver]


@dataclass(frozen=True)
class Message:
    """A notification, ready to be written in any form.

    Attributes:
        title: One line.
        state: Highest severity of the alerts that fire; ``resolved`` where none does.
        blocks: Lines of each alert, the first of which says what is wrong.
        more: Alerts beside those of ``blocks``.
        more_words: How to say how many more there are, with ``{}`` for the number.
    """

    title: str
    state: str
    blocks: tuple[tuple[str, ...], ...]
    more: int
    more_words: str

    def shown(self, count: int) -> tuple[tuple[tuple[str, ...], ...], str]:
        """Give the first alerts, and a line that says how many there are beside them; empty where there are none."""
        left = len(self.blocks) - count + self.more
        return self.blocks[:count], self.more_words.format(left) if left else ""


def one_line(value: object, limit: int = MAX_LINE) -> str:
    """Make one short line of any value."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def local_time(value: object) -> str:
    """Write one of Alertmanager's times as the host's clock shows it."""
    try:
        return datetime.fromisoformat(str(value)).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (ValueError, OverflowError):
        return one_line(value)


def mapping(value: object) -> Mapping[str, Any]:
    """Give a JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def describe(alert: Mapping[str, Any], words: Mapping[str, str]) -> tuple[str, ...]:
    """Write the lines of one alert."""
    labels, annotations = mapping(alert.get("labels")), mapping(alert.get("annotations"))
    resolved = alert.get("status") == "resolved"
    said = annotations.get("summary") or annotations.get("description") or ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
    state = words["resolved"] if resolved else words.get(str(labels.get("severity")), one_line(labels.get("severity", "")))
    facts = {
        "instance": one_line(labels.get("instance", "")),
        "since": local_time(alert.get("startsAt")),
        "until": local_time(alert.get("endsAt")) if resolved else "",
        "runbook": "" if resolved else one_line(annotations.get("runbook", "")),
    }
    first = words["line"].format(state, one_line(said)) if state else one_line(said)
    return (first, *(words["line"].format(words[name], value) for name, value in facts.items() if value))


def read_notification(content: bytes, language: str) -> Message:
    """Read the body of Alertmanager's webhook (version 4).

    Args:
        content: The body.
        language: ``en`` or ``zh``.

    Raises:
        NotDeliveredError: It is none.
    """
    words = WORDS[language]
    try:
        body = json.loads(content)
        alerts = [mapping(alert) for alert in body["alerts"]]
        truncated = int(body.get("truncatedAlerts") or 0)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise NotDeliveredError(400, "this is no notification of Alertmanager's webhook") from None
    if not alerts:
        raise NotDeliveredError(400, "this notification has no alerts")
    firing = [alert for alert in alerts if alert.get("status") != "resolved"]
    ordered = firing + [alert for alert in alerts if alert.get("status") == "resolved"]
    severities = {mapping(alert.get("labels")).get("severity") for alert in firing}
    state = next((severity for severity in SEVERITIES if severity in severities), SEVERITIES[-1]) if firing else "resolved"
    group, common = mapping(body.get("groupLabels")), mapping(body.get("commonLabels"))
    labels = {**common, **group}
    count = len(firing or alerts) + truncated
    where = words["between"].join(one_line(labels[name]) for name in ("site", "role") if labels.get(name))
    title = words["title"].format(
        state=words[state],
        count=f" ×{count}" if count > 1 else "",
        name=one_line(labels.get("alertname") or words["between"].join(f"{name}={value}" for name, value in group.items()) or "?", MAX_TITLE - 40),
        where=words["where"].format(where) if where else "",
    )
    blocks = tuple(describe(alert, words) for alert in ordered[:MAX_ALERTS])
    return Message(one_line(title, MAX_TITLE), state, blocks, len(ordered) - len(blocks) + truncated, words["more"])


def unmarked(text: str) -> str:
    """Keep a text from being taken for a link, an image, a font or a mention in Markdown."""
    return text.replace("<", "＜").replace(">", "＞").replace("](", "] (")


def feishu_body(message: Message, count: int) -> dict[str, Any]:
    """Write a card, all of plain text."""
    blocks, more = message.shown(count)
    texts = ["\n".join(lines) for lines in blocks] + ([more] if more else [])
    elements: list[dict[str, Any]] = []
    for text in texts:
        elements += [{"tag": "hr"}] if elements else []
        elements.append({"tag": "div", "text": {"tag": "plain_text", "content": text}})
    header = {"title": {"tag": "plain_text", "content": message.title}, "template": COLOURS[message.state]}
    return {"msg_type": "interactive", "card": {"config": {"wide_screen_mode": True}, "header": header, "elements": elements}}


def dingtalk_body(message: Message, count: int) -> dict[str, Any]:
    """Write Markdown; a line ends only where two spaces come before the line feed."""
    blocks, more = message.shown(count)
    parts = [f"### {unmarked(message.title)}"]
    parts += ["  \n".join((f"**{unmarked(first)}**", *map(unmarked, rest))) for first, *rest in blocks]
    return {"msgtype": "markdown", "markdown": {"title": message.title, "text": "\n\n".join([*parts, *([more] if more else [])])}}


def wecom_body(message: Message, count: int) -> dict[str, Any]:
    """Write Markdown, with the title in one of the three colours that there are."""
    blocks, more = message.shown(count)
    colour = "info" if message.state in {"resolved", "info"} else "warning"
    parts = [f'### <font color="{colour}">{unmarked(message.title)}</font>']
    parts += ["\n".join((f"**{unmarked(first)}**", *(f">{unmarked(line)}" for line in rest))) for first, *rest in blocks]
    return {"msgtype": "markdown", "markdown": {"content": "\n\n".join([*parts, *([more] if more else [])])}}


BODIES: Mapping[str, Callable[[Message, int], dict[str, Any]]] = {"feishu": feishu_body, "dingtalk": dingtalk_body, "wecom": wecom_body}


def fits(kind: str, body: Mapping[str, Any]) -> bool:
    """Tell whether a robot takes a body of this size."""
    if kind == "wecom":
        return len(body["markdown"]["content"].encode()) <= MAX_WECOM
    return len(encoded(body)) <= MAX_BODY


def encoded(body: Mapping[str, Any]) -> bytes:
    """Write a body as JSON."""
    return json.dumps(body, ensure_ascii=False).encode()


def signature(key: str, text: str) -> str:
    """Give the HMAC-SHA-256 of a text in base64."""
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


def compose(receiver: Receiver, message: Message, now: float) -> tuple[str, bytes]:
    """Give the address and the body of a request to a robot, with as many alerts as it takes.

    Args:
        receiver: The robot.
        message: What to say.
        now: Seconds since the epoch, for the signature.
    """
    write = BODIES[receiver.kind]
    body = next((body for count in range(len(message.blocks), 0, -1) if fits(receiver.kind, body := write(message, count))), write(message, 0))
    url = receiver.url
    if receiver.secret and receiver.kind == "feishu":
        # The text to be signed is the key here, and the message is empty.
        stamp = str(int(now))
        body = {"timestamp": stamp, "sign": signature(f"{stamp}\n{receiver.secret}", ""), **body}
    elif receiver.secret and receiver.kind == "dingtalk":
        stamp = str(int(now * 1000))
        query = urlencode({"timestamp": stamp, "sign": signature(receiver.secret, f"{stamp}\n{receiver.secret}")})
        url = f"{url}{'&' if '?' in url else '?'}{query}"
    return url, encoded(body)


def post(url: str, body: bytes, proxy: str, timeout: float) -> tuple[int, bytes]:
    """Send a request; redirections are not followed.

    Args:
        url: Where to.
        body: JSON.
        proxy: Address of an HTTP proxy; empty for none.
        timeout: Seconds for everything together.

    Returns:
        The status, and the beginning of the answer.

    Raises:
        OSError: Nobody answers, not in time, or not by a certificate that the host trusts.
        http.client.HTTPException: The answer is no HTTP.
        ValueError: The address is none.
    """
    end = time.monotonic() + timeout
    target, via = urlsplit(url), urlsplit(proxy or url)
    secure = target.scheme == "https"
    host, port = target.hostname or "", target.port or (443 if secure else 80)
    at, at_port = via.hostname or "", via.port or (port if not proxy else 80)
    headers = {"Content-Type": "application/json; charset=utf-8", "Connection": "close", "User-Agent": "alert_relay"}
    login = (
        {"Proxy-Authorization": "Basic " + base64.b64encode(f"{unquote(via.username)}:{unquote(via.password or '')}".encode()).decode()}
        if proxy and via.username
        else {}
    )
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    connection: http.client.HTTPConnection
    if secure:
        connection = http.client.HTTPSConnection(at, at_port, timeout=timeout, context=ssl.create_default_context())
        if proxy:
            connection.set_tunnel(host, port, headers=login)
    else:
        connection = http.client.HTTPConnection(at, at_port, timeout=timeout)
        if proxy:
            path, headers = url, headers | login
    try:
        connection.connect()
        channel = connection.sock
        wait(channel, end)
        connection.request("POST", path, body, headers)
        wait(channel, end)
        response = connection.getresponse()
        answer = b""
        while len(answer) < MAX_ANSWER:
            wait(channel, end)
            if not (part := response.read1(MAX_ANSWER - len(answer))):
                break
            answer += part
        return response.status, answer
    finally:
        connection.close()


def wait(channel: socket.socket, end: float) -> None:
    """Let the next step take no longer than until a time of the monotonic clock.

    Raises:
        TimeoutError: It has passed.
    """
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    channel.settimeout(left)


def judge(kind: str, status: int, content: bytes) -> None:
    """Judge a robot's answer.

    Args:
        kind: The robot's kind.
        status: Status of the answer.
        content: Body of the answer.

    Raises:
        NotDeliveredError: The robot has not taken the message.
    """
    try:
        answer = mapping(json.loads(content))
    except ValueError:
        answer = {}
    # Feishu's older answers have StatusCode alone.
    code = answer.get("code", answer.get("StatusCode")) if kind == "feishu" else answer.get("errcode")
    if isinstance(code, bool) or not isinstance(code, int):
        if status == 429 or status >= 500:
            raise NotDeliveredError(503, f"the robot answers HTTP {status}")
        if status >= 300:
            raise NotDeliveredError(422, f"the robot answers HTTP {status}: look at its address")
        raise NotDeliveredError(502, f"the answer (HTTP {status}) is not a robot's: it has no code")
    if code == 0 and status < 300:
        return
    said = one_line(answer.get("msg") or answer.get("StatusMessage") or answer.get("errmsg") or "")
    if status == 429 or status >= 500 or code in BUSY_CODES[kind] or BUSY_WORDS.search(said):
        raise NotDeliveredError(503, f"the robot takes no message at the moment (code {code}: {said})")
    raise NotDeliveredError(422, f"the robot refuses the message (code {code}: {said})")


def deliver(receiver: Receiver, message: Message, timeout: float) -> None:
    """Have a robot say a message.

    Args:
        receiver: The robot.
        message: What to say.
        timeout: Seconds that the robot may take.

    Raises:
        NotDeliveredError: It has not taken it.
    """
    url, body = compose(receiver, message, time.time())
    try:
        status, answer = post(url, body, receiver.proxy, timeout)
    except TimeoutError:
        raise NotDeliveredError(504, f"the robot has not answered within {timeout:g} s") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotDeliveredError(502, f"the robot cannot be reached: {error or type(error).__name__}") from None
    judge(receiver.kind, status, answer)


class Handler(BaseHTTPRequestHandler):
    """Takes one notification."""

    server: Relay
    timeout = REQUEST_SECONDS
    server_version, sys_version = "alert_relay", ""

    def do_GET(self) -> None:
        """Say that the program runs."""
        self.answer(200 if self.path == "/healthz" else 404, "")

    def do_POST(self) -> None:
        """Hand a notification on, and answer with what became of it."""
        settings = self.server.settings
        receiver = settings.receivers.get(self.path.removeprefix("/"))
        if receiver is None:
            self.answer(404, "there is no such receiver")
            return
        try:
            message = read_notification(self.content(), settings.language)
            deliver(receiver, message, settings.timeout)
        except NotDeliveredError as error:
            reason = receiver.hide(str(error))
            log(f"{receiver.name}: not delivered: {reason}")
            self.answer(error.status, f"{receiver.name}: {reason}")
        else:
            log(f"{receiver.name}: delivered: {message.title}")
            self.answer(200, "")

    def content(self) -> bytes:
        """Read the body.

        Raises:
            NotDeliveredError: It is too long, or shorter than announced.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise NotDeliveredError(411, "the request does not say how long it is")
        if int(length) > MAX_REQUEST:
            raise NotDeliveredError(413, f"the notification has {length} bytes, of which {MAX_REQUEST} are allowed")
        try:
            content = self.rfile.read(int(length))
        except OSError as error:
            raise NotDeliveredError(408, f"the notification has not come: {error}") from None
        if len(content) < int(length):
            raise NotDeliveredError(400, "the notification has not come as a whole")
        return content

    def answer(self, status: int, text: str) -> None:
        """Answer with a line of text. Alertmanager logs that of a failure."""
        content = f"{text}\n".encode() if text else b""
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Leave out the library's line for each request."""


class Relay(ThreadingHTTPServer):
    """The server, with its settings."""

    daemon_threads = True

    def __init__(self, settings: Settings) -> None:
        """Listen."""
        self.settings = settings
        super().__init__((settings.address, settings.port), Handler)


def log(text: str) -> None:
    """Write a line into the journal."""
    print(text, file=sys.stderr, flush=True)


def read_settings(text: str) -> Settings:
    """Read the settings, which the role writes.

    Args:
        text: JSON, with ``address``, ``port``, ``language``, ``timeout`` and ``receivers``.

    Raises:
        ValueError: They are not as they must be.
    """
    given = json.loads(text)
    receivers = {name: Receiver(name, **robot) for name, robot in given["receivers"].items()}
    if unknown := [receiver.name for receiver in receivers.values() if receiver.kind not in BODIES]:
        raise ValueError(f"robots of an unknown kind: {', '.join(unknown)}")
    if given["language"] not in WORDS:
        raise ValueError(f"there is no language {given['language']}")
    return Settings(given["address"], given["port"], given["language"], given["timeout"], receivers)


def notify(message: str) -> None:
    """Tell systemd something, if it listens."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)


def main() -> int:
    """Serve until told to end. The settings come by standard input, from a file that this program's user may not open."""
    try:
        server = Relay(read_settings(sys.stdin.buffer.read().decode()))
    except (OSError, ValueError, LookupError, TypeError) as error:
        log(f"cannot start: {error}")
        return 1
    notify("READY=1")
    log(f"listens at {server.settings.address}:{server.settings.port} for {', '.join(server.settings.receivers) or 'nobody'}")
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
