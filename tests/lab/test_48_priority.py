"""Whose turn it is at a model server that has more to do than it can: that of who has the key of a VIP, shown at nginx, at home or over the VPN."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab.testing import vllm_metric
from tests.lab.conftest import CA, api_key, container, wait_until

Entry = Callable[[str], tuple[str, str]]

# A VIP waits for one running answer to end, at worst as long as an answer takes; others for all that came before them: 48 of those wait beside the
# 16 that run, three times as long.
LEAST_ADVANTAGE = 3
SEATS, WORKERS = 16, 64
LOAD_S, PROBES_S = 24, 12
# Seconds that a whole answer takes while all seats are taken: long enough that the server can answer fewer in a second than the tier lets through,
# and so short that those who wait behind 48 others have their turn before the load ends.
ANSWER_S = 4.5
PILOT_TOKENS, MOST_TOKENS = 400, 800
"""Tokens of the answers by which it is found how fast this machine is at that, and the most that are asked for then."""

# Runs inside a host: asks for streams as told, each worker one after the other, and notes how long each took to begin.
CLIENT = """
import http.client, json, socket, ssl, sys, threading, time
job = json.load(sys.stdin)
context = ssl.create_default_context(cafile=job["ca"])
end = time.monotonic() + job["seconds"]
waits, statuses = [], {}

def ask(tokens):
    connection = http.client.HTTPConnection(job["name"], timeout=60)
    raw = socket.create_connection((job["address"], job["port"]), 60)
    connection.sock = context.wrap_socket(raw, server_hostname=job["name"])
    body = {"model": "assistant", "prompt": "Whose turn is it?", "stream": job["stream"], "ignore_eos": True, "max_tokens": tokens, **job["fields"]}
    headers = {"Authorization": f"Bearer {job['key']}", "Content-Type": "application/json", **job["headers"]}
    begun = time.monotonic()
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        if answer.status == 200 and answer.read1(1):
            waits.append(time.monotonic() - begun)
            while time.monotonic() < end and answer.read1(65536):
                pass
        return answer.status
    finally:
        connection.close()

def work(number):
    # Not all at once: who asks too often is refused before a queue is ever seen.
    time.sleep(job["stagger"] * number)
    turn = number
    while time.monotonic() < end:
        if ask(job["tokens"][turn % len(job["tokens"])]) != 200:
            time.sleep(0.5)
        turn += 5
        time.sleep(job["pause"])

workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(job["workers"])]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join(max(0, end + job["patience"] - time.monotonic()))
print(json.dumps({"waits": waits, "statuses": statuses}))
"""


def streams(host: str, entry: tuple[str, str], client: str, seconds: float, **job: Any) -> dict[str, Any]:
    """Ask for streams from inside a host; give the seconds that each took to begin, and how many answers had which status."""
    url, address = entry
    told = {"ca": CA, "name": url.removeprefix("https://"), "address": address, "port": 443, "key": api_key(client), "seconds": seconds}
    told |= {"workers": 1, "stream": True, "patience": 60, "stagger": 0, "tokens": [1], "pause": 0.3, "fields": {}, "headers": {}} | job
    command = ["docker", "exec", "--interactive", container(host), "python3", "-c", CLIENT]
    run = subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, timeout=seconds + 90, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def waiting() -> float:
    """Requests in the queue of the assistant's server."""
    return vllm_metric("hq-gpu1", "assistant", "num_requests_waiting")


def test_a_vip_does_not_wait_behind_those_who_came_before(entry: Entry) -> None:
    home, edge = entry("hq-gw1"), entry("edge-gw1")
    wishes = {"fields": {"priority": -1000}, "headers": {"X-Vllm-Priority": "-1000"}}
    with ThreadPoolExecutor() as pool:
        # Whole answers: what passes on each token in a stream would want the processors that the server shall be short of.
        once = streams("hq-client1", home, "branch-desk", 2, workers=SEATS, stream=False, stagger=0.12, tokens=[PILOT_TOKENS], pause=2)
        middle = min(MOST_TOKENS, PILOT_TOKENS * ANSWER_S / statistics.median(once["waits"]))
        # Of different lengths, so that places become free one by one.
        tokens = [round(middle * (0.77 + 0.065 * step)) for step in range(8)]
        many = {"workers": WORKERS, "stream": False, "patience": 0, "stagger": 0.12, "tokens": tokens, "pause": 0}
        load = pool.submit(streams, "hq-client1", home, "branch-desk", LOAD_S, **many)
        wait_until(lambda: waiting() >= (WORKERS - SEATS) * 3 / 4, "the assistant's server has a queue", 20)
        # Several of those that wait long, so that there are several to compare with.
        probes = {
            "VIP at home": pool.submit(streams, "hq-client1", home, "core-banking", PROBES_S),
            "VIP at the edge": pool.submit(streams, "wan-client1", edge, "mobile-app", PROBES_S),
            "standard at home": pool.submit(streams, "hq-client1", home, "branch-desk", PROBES_S, workers=2),
            "standard at the edge": pool.submit(streams, "wan-client1", edge, "web-chat", PROBES_S, workers=2),
            "standard that says it is urgent": pool.submit(streams, "wan-client1", edge, "web-chat", PROBES_S, workers=2, **wishes),
        }
        found = {name: probe.result() for name, probe in probes.items()}
        assert load.result()["statuses"].get("200", 0) > SEATS, load.result()
    for name, result in found.items():
        assert result["waits"], found
        middle, longest = statistics.median(result["waits"]), max(result["waits"])
        print(f"{name}: first token after {middle:.2f} s (median of {len(result['waits'])}), {longest:.2f} s at most")
    vip = max(statistics.median(result["waits"]) for name, result in found.items() if name.startswith("VIP"))
    for name, result in found.items():
        if name.startswith("standard"):
            assert statistics.median(result["waits"]) > LEAST_ADVANTAGE * vip, found
