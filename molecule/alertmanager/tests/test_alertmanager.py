"""An alert comes to each receiver once, whatever happens to one member; who may not give one is refused."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from lab.testing import changed, docker, rerun, tls_faults

MEMBERS = {"one": "198.18.56.11", "two": "198.18.56.12"}
PKI = "/etc/sovereign/pki"
KINDS = {"feishu", "dingtalk", "wecom", "webhook"}
Received = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def give(on: Any) -> Callable[..., str]:
    """Give an alert of a new name to members, as Prometheus does; give the name."""

    def given(severity: str, *members: str) -> str:
        name = f"Test{uuid.uuid4().hex[:10]}"
        for member in members:
            command = f"amtool alert add {name} severity={severity} site=hq role=test instance=db1 --annotation=summary='Something is wrong on db1.'"
            on(member).check_output(command)
        return name

    return given


@pytest.fixture
def received(on: Any) -> Received:
    """What the robots of all members were sent about an alert, in its order, each with the member's name."""

    def read(name: str) -> list[dict[str, Any]]:
        found = []
        for member in MEMBERS:
            for line in on(member).run("cat /run/robots/log").stdout.splitlines():
                if name in line:
                    found.append({"member": member, **json.loads(line)})
        return sorted(found, key=lambda entry: float(entry["time"]))

    return read


def until(what: str, probe: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not in {seconds:.0f} s")


def test_a_critical_alert_comes_to_each_receiver_once(give: Callable[..., str], received: Received) -> None:
    name = give("critical", *MEMBERS)
    until("all are told", lambda: {entry["kind"] for entry in received(name)} == KINDS, 60)
    # The second member waits 15 s for the first, and then has nothing to add.
    time.sleep(25)
    told = received(name)
    assert sorted(entry["kind"] for entry in told) == sorted(KINDS), [(entry["kind"], entry["member"]) for entry in told]
    bodies = {entry["kind"]: entry for entry in told}
    assert bodies["webhook"]["authorization"] == "Bearer a-token"
    assert {"timestamp", "sign"} <= set(bodies["feishu"]["body"])
    assert "sign=" in bodies["dingtalk"]["path"]
    for entry in told:
        assert "Something is wrong on db1." in json.dumps(entry["body"])


def test_a_warning_comes_to_those_who_want_warnings(give: Callable[..., str], received: Received) -> None:
    name = give("warning", *MEMBERS)
    until("they are told", lambda: {"dingtalk", "webhook"} == {entry["kind"] for entry in received(name)}, 90)


@pytest.fixture
def one_member_killed() -> Iterator[None]:
    docker("kill", "mol-alertmanager-one")
    yield
    docker("start", "mol-alertmanager-one")


@pytest.mark.usefixtures("one_member_killed")
def test_with_one_member_killed_it_still_comes_once(give: Callable[..., str], on: Any) -> None:
    name = give("critical", "two")

    def kinds() -> list[str]:
        lines = on("two").run("cat /run/robots/log").stdout.splitlines()
        return sorted(json.loads(line)["kind"] for line in lines if name in line)

    until("all are told", lambda: set(kinds()) == KINDS, 90)
    time.sleep(5)
    assert kinds() == sorted(KINDS)


def test_a_member_that_comes_back_is_found(on: Any) -> None:
    ask = f"curl --silent --cacert {PKI}/ca.crt --cert {PKI}/host.crt --key {PKI}/host.key https://{MEMBERS['two']}:9093/api/v2/status"
    until("two members", lambda: len(json.loads(on("two").run(ask).stdout or "{}").get("cluster", {}).get("peers", [])) == 2, 120)


def test_what_a_robot_has_refused_comes_later(on: Any, give: Callable[..., str], received: Received) -> None:
    for member in MEMBERS:
        on(member).check_output("touch /run/robots/busy")
    try:
        name = give("critical", *MEMBERS)
        until("all have been tried", lambda: {entry["kind"] for entry in received(name)} == KINDS, 90)
    finally:
        for member in MEMBERS:
            on(member).check_output("rm -f /run/robots/busy")
    until("all are told", lambda: {entry["kind"] for entry in received(name) if not entry["busy"]} == KINDS, 180)


def test_the_sign_of_life_comes_again_and_again_to_the_one_who_waits_for_it(on: Any, received: Received) -> None:
    def give() -> None:
        for member in MEMBERS:
            on(member).check_output("amtool alert add Watchdog severity=none site=hq --annotation=summary='All is well.'")

    def told() -> list[dict[str, Any]]:
        return [entry for entry in received("Watchdog") if entry["path"].startswith("/watchdog")]

    def another() -> bool:
        give()
        return len(told()) > before

    before = 0
    until("a first sign", another, 60)
    before = len(told())
    until("a second one", another, 120)
    assert len({entry["path"] for entry in received("Watchdog")}) == 1, "nobody else is told"
    signs = [float(entry["time"]) for entry in told()]
    assert min(later - earlier for earlier, later in pairwise(signs)) > 30, "from one member at a time"


def test_who_may_not_give_alerts_is_refused(on: Any) -> None:
    ask = f"curl --silent --max-time 5 --output /dev/null --write-out '%{{http_code}}' --cacert {PKI}/ca.crt"
    shown = f"--cert {PKI}/host.crt --key {PKI}/host.key"
    url = f"https://{MEMBERS['one']}:9093/api/v2/status"
    assert on("one").run(f"{ask} {shown} {url}").stdout == "200"
    assert on("stranger").run(f"{ask} {shown} {url}").rc, "the firewall"
    pem = on("stranger").check_output(f"cat {PKI}/host.pem")
    on("one").run(f"umask 077; cat > /root/stranger.pem <<'END'\n{pem}\nEND")
    assert on("one").run(f"{ask} --cert /root/stranger.pem {url}").rc, "a certificate of another name"
    assert on("one").run(f"{ask} {url}").rc, "no certificate"
    # The relay takes whatever comes to it: only Alertmanager may reach it.
    relay = "curl --silent --max-time 3 --output /dev/null --write-out '%{http_code}' --data '{}' http://127.0.0.1:9096/oncall"
    assert on("one").run(f"runuser -u nobody -- {relay}").rc
    assert on("one").run(f"runuser -u prometheus -- {relay}").stdout == "400"


def test_tls_is_1_3_alone(on: Any) -> None:
    assert not tls_faults(on("one"), f"{MEMBERS['one']}:9093", versions=["TLSv1.3"])


def test_no_key_of_a_robot_can_be_read(on: Any) -> None:
    for file in ("/etc/alertmanager/alertmanager.yml", "/etc/alertmanager/relay.json"):
        assert on("one").run(f"runuser -u nobody -- cat {file}").rc
    assert on("one").run("journalctl --no-pager --boot | grep -E 'a-key-of|access_token=x|a-token'").rc


def test_nonsense_is_refused_and_changes_nothing(on: Any) -> None:
    before = on("one").check_output("sha256sum /etc/alertmanager/*")
    done = rerun("--limit=one", "--tags=alertmanager", alertmanager_receivers=[{"name": "x", "kind": "feishu", "url": "http://open.feishu.cn/x"}])
    assert done.returncode
    assert "need a url that begins with https://" in " ".join(done.stdout.split())
    done = rerun("--limit=one", "--tags=alertmanager", alertmanager_extra_configuration={"rout": {}})
    assert done.returncode
    assert "field rout not found" in done.stdout
    assert on("one").check_output("sha256sum /etc/alertmanager/*") == before


def test_a_rerun_changes_nothing() -> None:
    done = rerun()
    assert set(changed(done).values()) == {0}, done.stdout
