"""The relay between Alertmanager and the robots of chat groups, against a server that answers as the robots do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.role_program import PROJECT, load

relay = load("alertmanager", "alert_relay")

SECRET = "SEC0123456789abcdef"
KEYS = {"feishu": "0f1e2d3c-feishu-key", "dingtalk": "a1b2c3d4-dingtalk-key", "wecom": "99887766-wecom-key"}
PATHS = {
    "feishu": f"/open-apis/bot/v2/hook/{KEYS['feishu']}",
    "dingtalk": f"/robot/send?access_token={KEYS['dingtalk']}",
    "wecom": f"/cgi-bin/webhook/send?key={KEYS['wecom']}",
}
OK = {"feishu": {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"}, "dingtalk": {"errcode": 0, "errmsg": "ok"}}
OK["wecom"] = OK["dingtalk"]
KINDS = tuple(KEYS)


class Robot(ThreadingHTTPServer):
    """A robot: keeps what it is asked, and answers what it is told to.

    Attributes:
        asked: Path and body of each request.
        status: Status of its answers.
        answer: Body of its answers.
        delay: Seconds before it answers.
        drip: Seconds between two bytes of its answer.
    """

    daemon_threads = True

    def __init__(self) -> None:  # noqa: D107
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.status, self.answer, self.delay, self.drip = 200, b"", 0.0, 0.0

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    """One request to a robot."""

    server: Robot

    def do_POST(self) -> None:  # noqa: D102
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json; charset=utf-8"
        self.server.asked.append((self.path, json.loads(content)))
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        self.send_header("Location", f"{self.server.url}/elsewhere")
        self.end_headers()
        for byte in self.server.answer if self.server.drip else ():
            self.wfile.write(bytes([byte]))
            time.sleep(self.server.drip)
        if not self.server.drip:
            self.wfile.write(self.server.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: D102
        pass


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def robot() -> Iterator[Robot]:
    server = Robot()
    with serving(server):
        yield server


def alert(name: str = "PostgresqlDown", severity: str = "critical", status: str = "firing", **changes: Any) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": name, "severity": severity, "instance": "hq-db1", "job": "postgres", "role": "patroni", "site": "hq"},
        "annotations": {"summary": "PostgreSQL on hq-db1 does not answer.", "runbook": f"docs/runbooks/patroni.md#{name.lower()}"},
        "startsAt": "2026-11-30T07:15:18.123456789Z",
        "endsAt": "2026-11-30T07:20:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "https://hq-mon1.lab.internal:9090/graph",
        "fingerprint": "0a1b",
    } | changes


def notification(*alerts: dict[str, Any], **changes: Any) -> bytes:
    """Write what Alertmanager 0.28 posts."""
    given = list(alerts) or [alert()]
    body = {
        "receiver": "ops",
        "status": "firing" if any(item["status"] == "firing" for item in given) else "resolved",
        "alerts": given,
        "groupLabels": {"alertname": given[0]["labels"]["alertname"], "role": "patroni", "site": "hq"},
        "commonLabels": {"severity": given[0]["labels"]["severity"]},
        "commonAnnotations": {},
        "externalURL": "https://hq-mon1.lab.internal:9093",
        "version": "4",
        "groupKey": '{}:{alertname="PostgresqlDown"}',
        "truncatedAlerts": 0,
    }
    return json.dumps(body | changes).encode()


def receiver(robot: Robot, kind: str, secret: str = "", proxy: str = "") -> Any:
    return relay.Receiver(name=f"ops-{kind}", kind=kind, url=robot.url + PATHS[kind], secret=secret, proxy=proxy)


@contextmanager
def relaying(*receivers: Any, language: str = "en", timeout: float = 5.0) -> Iterator[http.client.HTTPConnection]:
    server = relay.Relay(relay.Settings("127.0.0.1", 0, language, timeout, {item.name: item for item in receivers}))
    with serving(server):
        yield http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)


def ask(connection: http.client.HTTPConnection, path: str, content: bytes = b"", **headers: str) -> tuple[int, str]:
    connection.request("POST", path, content or notification(), headers)
    response = connection.getresponse()
    return response.status, response.read().decode().strip()


def delivered(robot: Robot, kind: str, content: bytes = b"", language: str = "en", secret: str = "") -> dict[str, Any]:
    """Send a notification, and give the body that the robot got."""
    robot.answer = json.dumps(OK[kind]).encode()
    with relaying(receiver(robot, kind, secret), language=language) as connection:
        assert ask(connection, f"/ops-{kind}", content) == (200, "")
    return robot.asked[-1][1]


def text_of(kind: str, body: dict[str, Any]) -> str:
    """Give all that a robot says."""
    if kind == "feishu":
        card = body["card"]
        parts = [element["text"]["content"] for element in card["elements"] if element["tag"] == "div"]
        return "\n".join([card["header"]["title"]["content"], *parts])
    markdown = body["markdown"]
    return str(markdown["content"] if kind == "wecom" else markdown["text"])


@pytest.fixture(autouse=True)
def _in_china(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_feishu_gets_a_card(robot: Robot) -> None:
    body = delivered(robot, "feishu")
    assert robot.asked[0][0] == PATHS["feishu"]
    assert body == {
        "msg_type": "interactive",
        "card": {
            "config": {"wide_screen_mode": True},
            "header": {"title": {"tag": "plain_text", "content": "[Alert] CRITICAL: PostgresqlDown (hq, patroni)"}, "template": "red"},
            "elements": [
                {
                    "tag": "div",
                    "text": {
                        "tag": "plain_text",
                        "content": "CRITICAL: PostgreSQL on hq-db1 does not answer.\nHost: hq-db1\nSince: 2026-11-30 15:15:18 +0800\n"
                        "Runbook: docs/runbooks/patroni.md#postgresqldown",
                    },
                }
            ],
        },
    }


def test_dingtalk_gets_markdown(robot: Robot) -> None:
    body = delivered(robot, "dingtalk")
    assert robot.asked[0][0] == PATHS["dingtalk"]
    assert body == {
        "msgtype": "markdown",
        "markdown": {
            "title": "[Alert] CRITICAL: PostgresqlDown (hq, patroni)",
            "text": "### [Alert] CRITICAL: PostgresqlDown (hq, patroni)\n\n**CRITICAL: PostgreSQL on hq-db1 does not answer.**  \nHost: hq-db1  \n"
            "Since: 2026-11-30 15:15:18 +0800  \nRunbook: docs/runbooks/patroni.md#postgresqldown",
        },
    }


def test_wecom_gets_markdown(robot: Robot) -> None:
    body = delivered(robot, "wecom", notification(alert(severity="warning")), language="zh")
    assert robot.asked[0][0] == PATHS["wecom"]
    assert body == {
        "msgtype": "markdown",
        "markdown": {
            "content": '### <font color="warning">【告警】警告：PostgresqlDown（hq，patroni）</font>\n\n'
            "**警告：PostgreSQL on hq-db1 does not answer.**\n>主机：hq-db1\n>开始时间：2026-11-30 15:15:18 +0800\n"
            ">处理手册：docs/runbooks/patroni.md#postgresqldown"
        },
    }


def test_feishus_signature_has_the_text_for_its_key_and_signs_nothing(robot: Robot) -> None:
    body = delivered(robot, "feishu", secret=SECRET)
    assert abs(int(body["timestamp"]) - time.time()) < 60
    expected = hmac.new(f"{body['timestamp']}\n{SECRET}".encode(), b"", hashlib.sha256).digest()
    assert base64.b64decode(body["sign"]) == expected
    assert body["msg_type"] == "interactive"


def test_dingtalks_signature_is_in_the_query_and_in_milliseconds(robot: Robot) -> None:
    body = delivered(robot, "dingtalk", secret=SECRET)
    query = parse_qs(urlsplit(robot.asked[0][0]).query, strict_parsing=True)
    assert query["access_token"] == [KEYS["dingtalk"]]
    stamp = query["timestamp"][0]
    assert abs(int(stamp) / 1000 - time.time()) < 60
    assert base64.b64decode(query["sign"][0]) == hmac.new(SECRET.encode(), f"{stamp}\n{SECRET}".encode(), hashlib.sha256).digest()
    assert set(body) == {"msgtype", "markdown"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("language", "title", "until"),
    [("en", "[Alert] RESOLVED: PostgresqlDown (hq, patroni)", "Until: "), ("zh", "【告警】已恢复：PostgresqlDown（hq，patroni）", "恢复时间：")],
)
def test_what_is_over_is_told(robot: Robot, kind: str, language: str, title: str, until: str) -> None:
    body = delivered(robot, kind, notification(alert(status="resolved")), language)
    text = text_of(kind, body)
    assert title in text
    assert f"{until}2026-11-30 15:20:00 +0800" in text
    assert "runbooks" not in text
    if kind == "feishu":
        assert body["card"]["header"]["template"] == "green"
    if kind == "wecom":
        assert '<font color="info">' in text


@pytest.mark.parametrize("kind", KINDS)
def test_what_fires_comes_before_what_is_over_and_gives_the_title(robot: Robot, kind: str) -> None:
    over, warning = (
        alert(status="resolved"),
        alert(severity="warning", annotations={"description": "Two."}),
    )
    text = text_of(kind, delivered(robot, kind, notification(over, warning, alert(annotations={}), truncatedAlerts=3)))
    assert "[Alert] CRITICAL ×5: PostgresqlDown" in text
    assert text.index("WARNING: Two.") < text.index("RESOLVED: PostgreSQL")
    # Without annotations, the labels say it.
    assert "CRITICAL: alertname=PostgresqlDown, instance=hq-db1," in text
    assert text.endswith("… and 3 more")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [10, 390])
def test_no_message_is_longer_than_its_robot_takes(robot: Robot, kind: str, length: int) -> None:
    many = [alert(annotations={"summary": f"{number}: {'长' * length}", "runbook": "r" * length}) for number in range(50)]
    body = delivered(robot, kind, notification(*many), "zh")
    size = len(json.dumps(body, ensure_ascii=False).encode())
    text = text_of(kind, body)
    if kind == "wecom":
        assert len(text.encode()) <= 4096
        # No alert more would have fitted.
        assert len(text.encode()) > 4096 - 2 * 3 * length or length == 10
    else:
        assert size <= 20_000
    shown = text.count("主机：")
    assert 1 <= shown <= 20
    assert f"另有 {50 - shown} 条" in text
    assert shown == 20 or kind == "wecom" or length > 10


@pytest.mark.parametrize("kind", ["dingtalk", "wecom"])
def test_nobody_is_mentioned_and_nothing_loaded_by_what_a_label_says(robot: Robot, kind: str) -> None:
    evil = alert(annotations={"summary": "<@all> ![x](https://evil.example/x.png) a <b> c"})
    evil["labels"]["instance"] = "a\n# b\n<font>"
    text = text_of(kind, delivered(robot, kind, notification(evil)))
    assert "<@all>" not in text
    assert "](" not in text
    assert "\n#" not in text.removeprefix("###")
    assert "＜@all＞" in text


# As they answer: codes and words of Feishu, DingTalk and WeCom.
REFUSED = [
    ("feishu", 200, {"code": 19021, "data": {}, "msg": "sign match fail or timestamp is not within one hour from current time"}, 422),
    ("feishu", 200, {"code": 19024, "data": {}, "msg": "Key Words Not Found"}, 422),
    ("feishu", 200, {"code": 19022, "data": {}, "msg": "Ip Not Allowed"}, 422),
    ("feishu", 400, {"code": 19001, "data": {}, "msg": "param invalid: incoming webhook access token invalid"}, 422),
    ("feishu", 400, {"code": 9499, "data": {}, "msg": "Bad Request"}, 422),
    ("feishu", 200, {"code": 11232, "data": {}, "msg": "frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]"}, 503),
    ("feishu", 200, {"code": 9499, "data": {}, "msg": "too many request"}, 503),
    ("dingtalk", 200, {"errcode": 310000, "errmsg": "sign not match, more: [https://ding-doc.dingtalk.com/doc#/serverapi2/qf2nxq]"}, 422),
    ("dingtalk", 200, {"errcode": 310000, "errmsg": "keywords not in content"}, 422),
    ("dingtalk", 200, {"errcode": 300005, "errmsg": "token is not exist"}, 422),
    ("dingtalk", 200, {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}, 503),
    ("dingtalk", 200, {"status": 1111, "wait": 5, "punish": "deny", "errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}, 503),
    ("dingtalk", 200, {"errcode": -1, "errmsg": "系统繁忙"}, 503),
    ("wecom", 200, {"errcode": 93000, "errmsg": "invalid webhook url, hint: [1592021214_50], from ip: 198.51.100.1"}, 422),
    ("wecom", 200, {"errcode": 40058, "errmsg": "markdown.content exceed max length 4096. invalid Request Parameter"}, 422),
    ("wecom", 200, {"errcode": 45009, "errmsg": "api freq out of limit, hint: [1651125626252370061579454]"}, 503),
    ("wecom", 500, {"errcode": 40001, "errmsg": "?"}, 503),
]


@pytest.mark.parametrize(("kind", "status", "answer", "becomes"), REFUSED)
def test_what_a_robot_does_not_take_is_a_failure_for_alertmanager(robot: Robot, kind: str, status: int, answer: Any, becomes: int) -> None:
    robot.status, robot.answer = status, json.dumps(answer).encode()
    with relaying(receiver(robot, kind)) as connection:
        given, said = ask(connection, f"/ops-{kind}")
    assert given == becomes, said
    code = answer.get("code", answer.get("errcode"))
    assert f"code {code}: {answer.get('msg', answer.get('errmsg'))}" in said
    assert len(robot.asked) == 1


@pytest.mark.parametrize(
    ("status", "answer", "becomes", "words"),
    [
        (200, b"<html>Please log in</html>", 502, "is not a robot's: it has no code"),
        (200, b"", 502, "is not a robot's"),
        (200, b"[]", 502, "is not a robot's"),
        (200, b'{"errcode": true}', 502, "is not a robot's"),
        (200, b"\xff\xfe{", 502, "is not a robot's"),
        (200, b'{"errcode": "' + b"x" * 200_000, 502, "is not a robot's"),
        (302, b"", 422, "answers HTTP 302: look at its address"),
        (404, b"not found", 422, "answers HTTP 404: look at its address"),
        (429, b"", 503, "answers HTTP 429"),
        (502, b"<html>", 503, "answers HTTP 502"),
    ],
)
def test_garbage_is_no_delivery(robot: Robot, status: int, answer: bytes, becomes: int, words: str) -> None:
    robot.status, robot.answer = status, answer
    with relaying(receiver(robot, "dingtalk")) as connection:
        given, said = ask(connection, "/ops-dingtalk")
    assert given == becomes
    assert words in said
    assert [path for path, _ in robot.asked] == [PATHS["dingtalk"]]


@pytest.mark.parametrize("slow", ["delay", "drip"])
def test_a_robot_that_takes_too_long_is_not_waited_for(robot: Robot, slow: str) -> None:
    robot.answer = json.dumps(OK["wecom"]).encode()
    setattr(robot, slow, 3.0 if slow == "delay" else 0.2)
    with relaying(receiver(robot, "wecom"), timeout=0.5) as connection:
        before = time.monotonic()
        assert ask(connection, "/ops-wecom") == (504, "ops-wecom: the robot has not answered within 0.5 s")
        assert time.monotonic() - before < 2


def test_one_that_is_slow_holds_no_other_up(robot: Robot) -> None:
    robot.answer, robot.delay = json.dumps(OK["wecom"]).encode(), 1.5
    other = Robot()
    other.answer = robot.answer
    with (
        serving(other),
        relaying(receiver(robot, "wecom"), relay.Receiver("other", "wecom", other.url + PATHS["wecom"])) as connection,
    ):
        first = http.client.HTTPConnection(connection.host, connection.port)
        first.request("POST", "/ops-wecom", notification())
        before = time.monotonic()
        assert ask(connection, "/other")[0] == 200
        assert time.monotonic() - before < 1
        assert first.getresponse().status == 200


def test_a_robot_that_is_away_is_tried_again_later(robot: Robot) -> None:
    gone = relay.Receiver("gone", "feishu", "http://127.0.0.1:1/hook/secret-key")
    strange = relay.Receiver("strange", "feishu", "https://no such host/hook/secret-key")
    with relaying(gone, strange) as connection:
        assert ask(connection, "/gone") == (502, "gone: the robot cannot be reached: [Errno 111] Connection refused")
        status, said = ask(connection, "/strange")
        assert status == 502
        assert "secret-key" not in said


def test_a_robot_must_show_a_certificate_that_the_host_trusts(robot: Robot) -> None:
    # The robot speaks no TLS at all.
    with relaying(relay.Receiver("ops", "wecom", robot.url.replace("http:", "https:") + PATHS["wecom"])) as connection:
        status, said = ask(connection, "/ops")
    assert status == 502
    assert "SSL" in said
    assert robot.asked == []


def test_a_proxy_is_asked_where_there_is_one(robot: Robot) -> None:
    robot.answer = json.dumps(OK["wecom"]).encode()
    ours = relay.Receiver("ops", "wecom", f"http://qyapi.example{PATHS['wecom']}", "", robot.url.replace("//", "//user:p%40ss-word@"))
    with relaying(ours) as connection:
        assert ask(connection, "/ops")[0] == 200
    assert robot.asked[0][0] == f"http://qyapi.example{PATHS['wecom']}"
    # To a robot with TLS, the proxy is asked for a way through, which this one does not know.
    tunnelled = relay.Receiver("ops", "wecom", f"https://qyapi.example{PATHS['wecom']}", "", ours.proxy)
    with relaying(tunnelled) as connection:
        status, said = ask(connection, "/ops")
    assert status == 502
    assert "Tunnel connection failed: 501" in said


def test_what_is_no_notification_is_refused(robot: Robot) -> None:
    with relaying(receiver(robot, "wecom")) as connection:
        assert ask(connection, "/nobody") == (404, "there is no such receiver")
        for content in (b"{", b"[]", b'{"alerts": 1}', b'{"alerts": []}', b"null", b"\xff"):
            status, said = ask(connection, "/ops-wecom", content)
            assert status == 400, (content, said)
        assert ask(connection, "/ops-wecom", b"x", **{"Content-Length": str(relay.MAX_REQUEST + 1)})[0] == 413
        connection.close()
        connection.request("POST", "/ops-wecom", iter([b"{}"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().status == 411
        connection.close()
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        connection.request("GET", "/ops-wecom")
        assert connection.getresponse().status == 404
    assert robot.asked == []


def test_odd_alerts_are_told_all_the_same(robot: Robot) -> None:
    body = delivered(robot, "feishu", notification(groupLabels={}, commonLabels=None, alerts=[{"status": "firing", "startsAt": 5}, "x"]))
    assert body["card"]["header"]["title"]["content"] == "[Alert] INFO ×2: ?"


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_logged_or_answered(robot: Robot, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    ours = receiver(robot, kind, SECRET)
    robot.answer = json.dumps({"code": 7, "errcode": 7, "msg": f"bad {ours.url} {SECRET}", "errmsg": f"bad key {KEYS[kind]}, {SECRET}"}).encode()
    with relaying(ours) as connection:
        status, said = ask(connection, f"/ops-{kind}")
        robot.answer = json.dumps(OK[kind]).encode()
        assert ask(connection, f"/ops-{kind}")[0] == 200
    assert status == 422
    logged = capfd.readouterr().err
    assert f"ops-{kind}: not delivered: the robot refuses the message (code 7: bad " in logged
    assert f"ops-{kind}: delivered: [Alert] CRITICAL: PostgresqlDown (hq, patroni)" in logged
    for text in (logged, said):
        assert "***" in text
        assert SECRET not in text
        assert KEYS[kind] not in text


def test_it_starts_with_its_settings_or_says_why_not() -> None:
    settings = {"address": "127.0.0.1", "port": 0, "language": "en", "timeout": 5, "receivers": {"ops": {"kind": "feishu", "url": "https://x/y"}}}

    def run(**changes: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(PROJECT / "roles/alertmanager/files/alert_relay.py")]
        return subprocess.run(command, input=json.dumps(settings | changes), capture_output=True, text=True, timeout=20, check=False)

    assert run(receivers={"ops": {"kind": "slack", "url": "x"}}).stderr == "cannot start: robots of an unknown kind: ops\n"
    assert run(language="fr").stderr == "cannot start: there is no language fr\n"
    assert run(address="192.0.2.1").stderr.startswith("cannot start: [Errno")
    assert run(receivers={"ops": {"kind": "wecom"}}).returncode == 1
    assert relay.read_settings(json.dumps(settings)).receivers == {"ops": relay.Receiver("ops", "feishu", "https://x/y")}
