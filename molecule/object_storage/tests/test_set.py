"""What operators rely on, in the order in which it is tried: changes without a lost request, a host that dies, one that is installed anew."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from s3_client import ADDRESS, CLUSTER, begin, result, until

from lab.testing import changed, docker, rerun

# Writes numbered objects until it is told to stop, and beside that reads those that were acknowledged, again and again: with pauses, for the hosts
# share two cores.
LEDGER = """
import os
acknowledged, failed, unread, reads, end = [], [], [], 0, time.monotonic() + job["limit"]

def write():
    s3, number = client(), 0
    while time.monotonic() < end and not os.path.exists(job["stop"]):
        number += 1
        try:
            s3.put_object(Bucket="uploads", Key=f"{job['run']}/{number}", Body=str(number).encode() * 500)
            acknowledged.append(number)
        except (BotoCoreError, ClientError) as error:
            failed.append(f"{number}: {error}")
        time.sleep(0.2)

def read(number, s3):
    try:
        return s3.get_object(Bucket="uploads", Key=f"{job['run']}/{number}")["Body"].read() == str(number).encode() * 500 or "wrong"
    except (BotoCoreError, ClientError) as error:
        return str(error)

writer, s3 = threading.Thread(target=write), client()
writer.start()
while writer.is_alive():
    for number in acknowledged[-40:]:
        said = read(number, s3)
        reads += 1
        if said is not True:
            unread.append(f"{number}: {said}")
        time.sleep(0.1)
    time.sleep(0.1)
lost = [number for number in acknowledged if read(number, s3) is not True]
print(json.dumps({"acknowledged": len(acknowledged), "failed": failed, "reads": reads, "unread": unread, "lost": lost}))
"""


STOP = "/run/stop-writing"
WRITES = 15
"""How many objects are written whatever the time that they take."""


def start(on: Any, run: str) -> subprocess.Popen[str]:
    """Start the ledger on the client's host, and wait for its first object."""
    before = written(on)
    on("client").check_output(f"rm -f {STOP}")
    process = begin(LEDGER, run=run, stop=STOP, limit=600)
    until(lambda: bool(written(on) - before), 60)
    return process


def finish(on: Any, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Let so many more objects be written, stop the ledger, and give its report."""
    before = written(on)
    try:
        until(lambda: len(written(on) - before) >= WRITES, 240)
    finally:
        on("client").check_output(f"touch {STOP}")
    ledger: dict[str, Any] = result(process)
    return ledger


def rings(on: Any, host: str) -> str:
    """Digests of a member's rings and of what they are made from."""
    return str(on(host).check_output("cd /etc/swift && sha256sum *.builder *.ring.gz"))


def copies(on: Any, host: str) -> set[str]:
    """Files of objects on a member, by what they hold and when it was written."""
    return set(on(host).check_output("cd /srv/node/d1/objects && find . -name '*.data' -o -name '*.ts'").split())


def written(on: Any) -> set[str]:
    """Objects on the member that no test strikes."""
    return set(on("s3c").run("find /srv/node/d1/objects -name '*.data'").stdout.split())


def processes(on: Any, host: str) -> dict[str, str]:
    """Main processes of a member's units, by unit."""
    shown = on(host).check_output("systemctl show --property=Id --property=MainPID 'swift-*' object_storage_mesh").split("\n\n")
    return {told["Id"]: told["MainPID"] for told in (dict(line.split("=", 1) for line in block.splitlines()) for block in shown)}


def reloads(on: Any) -> dict[str, str]:
    """How often the proxy server of each member has taken up its settings."""
    return {host: on(host).check_output("journalctl --unit=swift-proxy --grep 're.exec|Reloaded' --quiet | wc -l") for host in ADDRESS}


def test_all_members_have_the_same_rings(on: Any) -> None:
    assert len({rings(on, host) for host in ADDRESS}) == 1


def test_changes_lose_no_request(on: Any) -> None:
    before, taken_up = {host: processes(on, host) for host in ADDRESS}, reloads(on)
    # A run that is cut once it has written the settings, and the next one.
    settings = {"object_storage_settings": {"node_timeout": 12}}
    cut = rerun("--tags=object_storage_configure", **settings)
    assert {host for host, count in changed(cut).items() if count} == set(ADDRESS)
    assert reloads(on) == taken_up
    run = start(on, "change")
    run_again = rerun("--tags=object_storage_configure,object_storage_service", **settings)
    assert {host for host, count in changed(run_again).items() if count} == set(ADDRESS)
    ledger = finish(on, run)
    assert (ledger["failed"], ledger["unread"], ledger["lost"]) == ([], [], [])
    assert ledger["acknowledged"] > WRITES
    assert ledger["reads"] > 0
    assert {host: processes(on, host) for host in ADDRESS} == before
    now = reloads(on)
    assert {host for host in ADDRESS if int(now[host]) > int(taken_up[host])} == set(ADDRESS)
    again = rerun("--tags=object_storage_configure,object_storage_service", **settings)
    assert set(changed(again).values()) == {0}, again.stdout


def test_what_does_not_run_beside_a_target_that_does_is_started(on: Any) -> None:
    on("s3b").run_expect([0], "systemctl stop swift-object-updater && systemctl is-active object_storage.target")
    assert changed(rerun("--tags=object_storage_service", "--limit=s3b")) == {"s3b": 1}
    on("s3b").run_expect([0], "systemctl is-active swift-object-updater")


def test_secrets_that_would_hide_all_objects_are_refused(on: Any) -> None:
    before = on("s3a").check_output("sha256sum /etc/swift/swift.conf")
    run = rerun("--tags=object_storage_configure", "--limit=s3a", object_storage_hash_suffix="x" * 43)
    assert run.returncode != 0
    assert "none of them would be found" in " ".join((run.stdout + run.stderr).split())
    assert on("s3a").check_output("sha256sum /etc/swift/swift.conf") == before


def test_a_host_that_dies_costs_no_read_and_gets_back_what_it_missed(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(on, "kill")
    try:
        docker("kill", f"{CLUSTER}-s3b")
        ledger = finish(on, run)
    finally:
        docker("start", f"{CLUSTER}-s3b")
    with capsys.disabled():
        print(f"\n{ledger['acknowledged']} acknowledged, {len(ledger['failed'])} refused, {ledger['reads']} reads while a host died")
    assert (ledger["unread"], ledger["lost"]) == ([], [])
    assert ledger["acknowledged"] > 10
    assert ledger["reads"] > 0
    # What was on its way to the host when it died.
    assert len(ledger["failed"]) <= 3, ledger["failed"]
    took = until(lambda: copies(on, "s3a") == copies(on, "s3b") == copies(on, "s3c"), 240)
    with capsys.disabled():
        print(f"every copy is back {took:.0f} s after the host was started")


def test_a_member_installed_anew_gets_the_rings_of_the_others(on: Any) -> None:
    """The first one, which is nobody's source of truth; with it the change above is taken back."""
    before = rings(on, "s3a")
    on("s3a").run_expect([0], "systemctl stop object_storage.target && rm -rf /etc/swift /srv/node/d1")
    assert changed(rerun())["s3a"] > 0
    assert {rings(on, host) for host in ADDRESS} == {before}
    until(lambda: copies(on, "s3a") == copies(on, "s3b") == copies(on, "s3c"), 240)
