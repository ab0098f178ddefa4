"""Streams, logs, drains, reloads, and hosts that die."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from gateway_client import CLUSTER, SERVERS, chat, counters, exchange, http, inside, key_of, statuses, wait_for_servers, wait_until

from lab.testing import changed, docker, rerun

CLIENTS = ("core-banking", "back-office", "metered", "web-chat", "kiosk")

# Runs inside a host: asks over and over from several threads until the time is over; prints when each question was asked and answered, and how.
LOAD = """
import http.client, json, ssl, sys, threading, time
job = json.load(sys.stdin)
context = ssl.create_default_context(cafile="/etc/sovereign/pki/ca.crt")
context.check_hostname = False
results, end = [], time.monotonic() + job["seconds"]
def client():
    connection = None
    while time.monotonic() < end:
        begun = time.monotonic()
        try:
            connection = connection or http.client.HTTPSConnection(job["address"], 8443, timeout=8, context=context)
            connection.request("POST", "/v1/chat/completions", job["body"], {"Authorization": "Bearer " + job["key"]})
            answer = connection.getresponse()
            answer.read()
            status = answer.status
            if answer.headers.get("connection") == "close":
                connection.close()
                connection = None
        except (OSError, http.client.HTTPException) as error:
            status, connection = type(error).__name__, None
        results.append((begun, time.monotonic(), status))
        time.sleep(job["pause"])
threads = [threading.Thread(target=client) for _ in range(job["clients"])]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(sorted(results)))
"""

# Runs inside a host: sends one command to HAProxy's runtime socket and prints what it says.
RUNTIME = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/haproxy/admin.sock")
connection.sendall(sys.argv[1].encode() + b"\\n")
print(connection.recv(65536).decode())
"""


@contextmanager
def load(host: str, address: str, client: str, seconds: float) -> Iterator[list[tuple[float, float, int | str]]]:
    """Keep asking for the assistant from a host while the block runs; the list is filled at its end."""
    job = {
        "address": address,
        "key": key_of(client),
        "seconds": seconds,
        "clients": 3,
        "pause": 0.03,
        "body": chat("assistant", max_tokens=1).decode(),
    }
    program = ["docker", "exec", "--interactive", f"{CLUSTER}-{host}", "python3", "-c", LOAD]
    results: list[tuple[float, float, int | str]] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(subprocess.run, program, input=json.dumps(job), capture_output=True, text=True, timeout=seconds + 60, check=True)
        time.sleep(1)
        yield results
        results += [(begun, ended, status) for begun, ended, status in json.loads(running.result().stdout)]
    assert results


def log_lines(host: str, **fields: object) -> list[dict[str, object]]:
    """Lines of a gateway's log that have these fields."""
    lines = inside(host, "journalctl", "--unit=haproxy", "--output=cat", "--no-pager", "--lines=2000").splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in logged if fields.items() <= entry.items()]


def test_a_stream_arrives_token_by_token_over_two_gateways() -> None:
    answer = exchange("edge-gw1", "edge-gw1", http(chat("assistant", stream=True, max_tokens=12), key=key_of("web-chat")))
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.count(b"data: {") == 12
    gaps = [later - earlier for earlier, later in itertools.pairwise(answer.moments)]
    # The stand-in sends one each 0.1 s. Something that buffers would send several at once, and none for as long.
    assert len([gap for gap in gaps if gap > 0.05]) >= 10, gaps
    assert max(gaps) < 0.35, gaps


def test_a_model_server_sees_neither_keys_nor_what_could_steer_it() -> None:
    headers = (
        "Cookie: a=b\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Data-Parallel-Rank: 1\r\nProxy-Authorization: x\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAA\r\nX-Anything: y\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    )
    for source, client in (("hq-gw1", "core-banking"), ("edge-gw1", "web-chat")):
        answer = exchange(source, source, http(chat("assistant"), key=key_of(client), headers=headers))
        assert answer.status == 200, answer.raw
        seen = answer.json()["stub"]["headers"]
        assert set(seen) <= {"host", "content-length", "content-type", "traceparent", "x-request-id", "connection", "x-vllm-priority"}, seen
        assert seen["x-request-id"] == answer.headers["x-request-id"]
        assert "server" not in answer.headers


def test_a_model_server_is_told_the_priority_of_the_key_and_not_what_the_client_wishes() -> None:
    wishes = "X-Vllm-Priority: -1000\r\nx-vllm-priority: -2000\r\n"
    # The last two pass the VPN: the on-premises gateway goes by the key, not by what the edge's tells it.
    known = (
        ("hq-gw1", "core-banking", 0),
        ("hq-gw1", "back-office", 5),
        ("hq-gw1", "metered", 9),
        ("edge-gw1", "mobile-app", 0),
        ("edge-gw1", "web-chat", 5),
    )
    for source, client, priority in known:
        for headers in ("", wishes):
            answer = exchange(source, source, http(chat("assistant", priority=-1000), key=key_of(client), headers=headers))
            assert answer.status == 200, answer.raw
            assert answer.json()["stub"]["headers"]["x-vllm-priority"] == str(priority - 10), (source, client, headers)
    peer = exchange("edge-gw1", "hq-gw1", http(chat("assistant"), key=key_of("web-chat"), headers=wishes), vpn=True)
    assert peer.json()["stub"]["headers"]["x-vllm-priority"] == "-5"


def test_a_request_has_one_name_in_every_log_and_no_log_holds_a_key_or_a_prompt() -> None:
    prompt, name = "a prompt that nobody may read", f"trace-{uuid.uuid4()}"
    body = chat("assistant", messages=[{"role": "user", "content": prompt}])
    named = exchange("edge-gw1", "edge-gw1", http(body, key=key_of("web-chat"), headers=f"X-Request-ID: {name}\r\n"))
    assert named.headers["x-request-id"] == name
    forged = exchange("edge-gw1", "edge-gw1", http(body, key=key_of("web-chat"), headers='X-Request-ID: a"}\\n{"forged":1\r\n'))
    assert re.fullmatch(r"[0-9A-F]{16,64}", forged.headers["x-request-id"])
    exchange("edge-gw1", "edge-gw1", http(chat('x"}\n{"forged":"1'), key=key_of("web-chat"), path='/v1/completions?key="'))
    wait_until(lambda: len(log_lines("edge-gw1", request_id=name)) == 1, "the request is logged", 5)
    (entry,) = log_lines("edge-gw1", request_id=name)
    assert (entry["client"], entry["model"], entry["status"], entry["pool"], entry["site"]) == (
        "web-chat",
        "assistant",
        200,
        "remote_assistant",
        "edge",
    )
    far = log_lines("hq-gw1", request_id=name) + log_lines("hq-gw2", request_id=name)
    assert [(entry["frontend"], entry["site"], entry["client"], entry["pool"]) for entry in far] == [("vpn", "edge", "web-chat", "model_assistant")]
    for host in SERVERS:
        journal = inside(host, "journalctl", "--unit=haproxy", "--output=cat", "--no-pager")
        assert prompt not in journal
        assert not any(key_of(client) in journal for client in CLIENTS)
        assert "forged" not in {name for entry in log_lines(host) for name in entry}


def test_keys_are_on_no_host_in_clear() -> None:
    patterns = "\n".join(key_of(client) for client in CLIENTS)
    for host in SERVERS:
        search = ["docker", "exec", "-i", f"{CLUSTER}-{host}", "grep", "-rlFf", "-", "/etc", "/run", "/var/lib", "/var/log", "/usr/local"]
        found = subprocess.run(search, input=patterns, capture_output=True, text=True, check=False)
        assert found.stdout == "", (host, found.stdout)
        # The same search finds what is there.
        assert subprocess.run(search, input=host, capture_output=True, text=True, check=False).stdout
        assert inside(host, "stat", "--format=%a %U", "/etc/haproxy/model_gateway/keys.map").strip() == "600 root"


def test_metrics_are_for_this_host_alone() -> None:
    metrics = inside("hq-gw1", "curl", "--silent", "--fail", "http://127.0.0.1:8405/metrics")
    assert re.search(r'^haproxy_server_status\{proxy="model_assistant",server="hq-gw2",state="UP"\} 1$', metrics, flags=re.MULTILINE)
    refused = subprocess.run(["docker", "exec", f"{CLUSTER}-hq-gw2", "curl", "--silent", "http://198.18.25.11:8405/metrics"], check=False)
    assert refused.returncode == 7


def test_a_client_that_leaves_ends_its_request_at_the_model_server() -> None:
    for source, client, seen_by in (("hq-gw2", "core-banking", ["hq-gw1", "hq-gw2"]), ("edge-gw1", "web-chat", ["hq-gw1", "hq-gw2"])):
        before = sum(counters(host, "assistant")["aborted"] for host in seen_by)
        exchange(source, source, http(chat("assistant", stub_sleep=20), key=key_of(client)), leave=0.5)
        wait_until(lambda before=before, seen_by=seen_by: sum(counters(host, "assistant")["aborted"] for host in seen_by) == before + 1, "aborted", 5)


def test_a_model_server_that_thinks_longer_than_clients_may_dawdle_is_waited_for() -> None:
    """The client's time-out in this scenario is 6 s; it is for clients that do not take their answer, not for models that think."""
    answer = exchange("edge-gw1", "edge-gw1", http(chat("assistant", stub_sleep=8), key=key_of("web-chat")))
    assert answer.status == 200, answer.raw
    assert answer.seconds > 8


def test_a_reload_cuts_no_stream_and_fails_no_request() -> None:
    streams = ThreadPoolExecutor(1)
    with load("hq-gw2", "198.18.25.11", "core-banking", 7) as results:
        stream = streams.submit(exchange, "hq-gw2", "hq-gw1", http(chat("assistant", stream=True, max_tokens=60), key=key_of("core-banking")))
        for _ in range(2):
            time.sleep(1)
            inside("hq-gw1", "systemctl", "reload", "haproxy")
    answer = stream.result()
    assert answer.body.count(b"data: {") == 60
    assert answer.body.rstrip().endswith(b"0")
    assert {status for _, _, status in results} == {200}, [row for row in results if row[2] != 200]


@pytest.fixture
def everything_ready() -> Iterator[None]:
    """Leave the pools as they were, whatever happens to the test."""
    yield
    inside("hq-gw1", "systemctl", "start", "stub-assistant")
    changed(rerun(playbook="drain.yml", model_gateway_drain_state="ready"))


@pytest.mark.usefixtures("everything_ready")
def test_a_drained_server_ends_what_it_has_begun_and_gets_nothing_new() -> None:
    place = ("model_assistant", "hq-gw1")
    with ThreadPoolExecutor(3) as pool:
        # Two streams: one for each server.
        streams = [
            pool.submit(exchange, "hq-gw2", "hq-gw1", http(chat("assistant", stream=True, max_tokens=200), key=key_of("core-banking")))
            for _ in range(2)
        ]
        wait_until(lambda: running("hq-gw1") == 1 == running("hq-gw2"), "each server has a stream", 5)
        draining = pool.submit(rerun, playbook="drain.yml", model_gateway_drain_state="drained")
        wait_until(lambda: {statuses(gateway)[place] for gateway in ("hq-gw1", "hq-gw2")} == {"DRAIN"}, "both gateways drain it", 16)
        before = counters("hq-gw1", "assistant")["requests"]
        for gateway in ("hq-gw1", "hq-gw2"):
            for _ in range(2):
                assert exchange("hq-gw2", gateway, http(chat("assistant"), key=key_of("core-banking"))).status == 200
        assert not draining.done(), "the drain has not waited for the stream"
        assert changed(draining.result()) == {"hq-gw1": 1, "hq-gw2": 1}
        assert running("hq-gw1") == 0
        assert [stream.result().body.count(b"data: {") for stream in streams] == [200, 200]
    assert counters("hq-gw1", "assistant")["requests"] == before
    assert changed(rerun(playbook="drain.yml", model_gateway_drain_state="drained")) == {"hq-gw1": 0, "hq-gw2": 0}
    # The renewal of a certificate in the midst of the work does not bring the server back.
    inside("hq-gw1", "systemctl", "reload", "haproxy")
    time.sleep(3)
    assert statuses("hq-gw1")[place] == "DRAIN"
    # What may have been forgotten, by a run that was killed or a person, is shown by each run, and changed by none.
    assert "model_assistant/hq-gw1 gets no requests (DRAIN)" in told_by_verify()
    assert statuses("hq-gw1")[place] == "DRAIN"
    # Nor does its death: work on a server that is dead begins with the same drain.
    inside("hq-gw1", "systemctl", "stop", "stub-assistant")
    assert changed(rerun(playbook="drain.yml", model_gateway_drain_state="drained")) == {"hq-gw1": 0, "hq-gw2": 0}
    inside("hq-gw1", "systemctl", "start", "stub-assistant")
    assert changed(rerun(playbook="drain.yml", model_gateway_drain_state="ready")) == {"hq-gw1": 1, "hq-gw2": 1}
    assert "gets no requests" not in told_by_verify()
    for _ in range(4):
        assert exchange("hq-gw2", "hq-gw1", http(chat("assistant"), key=key_of("core-banking"))).status == 200
    assert counters("hq-gw1", "assistant")["requests"] > 0


def told_by_verify() -> str:
    """Give what a run that only verifies prints, warnings included, without its line breaks; it must have succeeded and changed nothing."""
    run = rerun("--tags=verify")
    assert changed(run) == {"hq-gw1": 0, "hq-gw2": 0, "edge-gw1": 0}
    return " ".join((run.stdout + run.stderr).split())


def test_a_run_that_was_cut_before_the_reload_is_found_and_healed() -> None:
    """A client's key is taken away, and the run ends between writing the tables and reloading."""
    key, here = key_of("kiosk"), "--limit=edge-gw1"
    known = {client: key_of(client) for client in (*CLIENTS, "mobile-app")}
    keys = {"model_gateway_keys": known | {"kiosk": "sk-a-new-key-of-the-kiosk"}}

    def ask() -> int:
        return exchange("edge-gw1", "edge-gw1", http(chat("faq"), key=key)).status

    def refused(run: subprocess.CompletedProcess[str]) -> str:
        said = " ".join((run.stdout + run.stderr).split())
        assert run.returncode != 0, said
        return said

    assert ask() == 200
    try:
        assert "cut before the reload" in refused(rerun(here, playbook="cut.yml", **keys))
        for look in (rerun(here, "--tags=verify", **keys), rerun(here, playbook="../../playbooks/running.yml")):
            said = refused(look)
            assert "HAProxy runs another configuration than /etc/haproxy/haproxy.cfg holds" in said
            assert "HAProxy runs with another /etc/haproxy/model_gateway/keys.map than is written" in said
            assert "Run the role that configures it" in said
        assert ask() == 200, "HAProxy was reloaded, so that the test shows nothing"
        # The reload: nothing is left to write.
        assert changed(rerun(here, "--tags=model_gateway", **keys)) == {"edge-gw1": 1}
        assert ask() == 401
        # The inventory declares another key than the one that was ever written.
        assert "than the inventory declares" in refused(rerun(here, "--tags=verify"))
    finally:
        changed(rerun(here, "--tags=model_gateway"))
    assert changed(rerun(here, playbook="../../playbooks/running.yml")) == {"edge-gw1": 0}
    assert ask() == 200


def running(host: str) -> int:
    """Count the requests that the assistant's stand-in on a host is answering."""
    return counters(host, "assistant")["running"]


def test_a_model_without_a_living_server_is_unavailable_and_others_are_not() -> None:
    inside("edge-gw1", "systemctl", "stop", "stub-faq")
    try:
        wait_until(lambda: statuses("edge-gw1")["model_faq", "edge-gw1"] == "DOWN", "the server is found dead", 5)
        answer = exchange("edge-gw1", "edge-gw1", http(chat("faq"), key=key_of("web-chat")))
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "model_unavailable", "5")
        assert exchange("edge-gw1", "edge-gw1", http(chat("assistant"), key=key_of("web-chat"))).status == 200
    finally:
        inside("edge-gw1", "systemctl", "start", "stub-faq")
    wait_until(lambda: statuses("edge-gw1")["model_faq", "edge-gw1"] == "UP", "the server is found alive", 10)
    assert exchange("edge-gw1", "edge-gw1", http(chat("faq"), key=key_of("web-chat"))).status == 200


def test_a_site_that_drains_a_model_takes_no_new_requests_from_its_peers_and_ends_the_old_ones() -> None:
    def both_gateways_set(state: str) -> None:
        for gateway in ("hq-gw1", "hq-gw2"):
            for server in ("hq-gw1", "hq-gw2"):
                assert inside(gateway, "python3", "-c", RUNTIME, f"set server model_assistant/{server} state {state}").strip() == ""

    def seen_by_the_edge() -> set[str]:
        return {statuses("edge-gw1")["remote_assistant", gateway] for gateway in ("hq-gw1", "hq-gw2")}

    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(exchange, "edge-gw1", "edge-gw1", http(chat("assistant", stream=True, max_tokens=80), key=key_of("web-chat")))
        wait_until(lambda: running("hq-gw1") + running("hq-gw2") == 1, "the stream has begun", 5)
        both_gateways_set("drain")
        try:
            wait_until(lambda: seen_by_the_edge() == {"NOLB"}, "the edge sends nothing more", 6)
            answer = exchange("edge-gw1", "edge-gw1", http(chat("assistant"), key=key_of("web-chat")))
            assert (answer.status, answer.code) == (503, "model_unavailable")
            assert not stream.done(), "the stream was too short to tell"
        finally:
            both_gateways_set("ready")
        assert stream.result().body.count(b"data: {") == 80
    wait_until(lambda: seen_by_the_edge() == {"UP"}, "the edge sends requests again", 10)
    assert exchange("edge-gw1", "edge-gw1", http(chat("assistant"), key=key_of("web-chat"))).status == 200


@pytest.mark.parametrize(("end", "back"), [("kill", "start"), ("pause", "unpause")])
def test_requests_from_the_edge_go_on_when_an_on_premises_gateway_dies_or_goes_silent(end: str, back: str) -> None:
    """With the gateway's host goes one of the two servers of the model, too."""
    try:
        with load("edge-gw1", "198.18.25.139", "web-chat", 12) as results:
            time.sleep(1)
            docker(end, f"{CLUSTER}-hq-gw1")
    finally:
        docker(back, f"{CLUSTER}-hq-gw1")
    good = sorted(ended for _, ended, status in results if status == 200)
    gap = max(later - earlier for earlier, later in itertools.pairwise(good))
    failed = [row for row in results if row[2] != 200]
    print(f"{end}: {len(results)} requests, {len(failed)} failed, longest gap between two answers {gap:.2f} s")
    assert gap <= 5, failed
    assert len(failed) < len(results) * 0.1, failed
    # The host comes back as it was, with nobody's help.
    wait_for_servers(30)
    assert exchange("edge-gw1", "hq-gw1", http(chat("assistant"), key=key_of("web-chat")), vpn=True).status == 200
