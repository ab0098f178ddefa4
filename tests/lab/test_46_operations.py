"""What operators do to the data tier while clients write: restart it, change its passwords, replace one of its hosts."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab.testing import PROJECT
from tests.lab.conftest import PORTS, STATE, execute, wait_until

DATA_HOSTS = ("hq-db1", "hq-db2", "hq-db3")
CLIENT = "hq-app1"
SECRETS = {"postgresql": "patroni", "redis": "redis", "rabbitmq": "rabbitmq", "object_storage": "object_storage"}
# Operations touch the data tier alone; the other hosts of the site would only be looked at.
LIMIT = f"--limit=localhost,{CLIENT},{','.join(DATA_HOSTS)}"


def play(playbook: str, limit: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run a playbook of ``playbooks/ops`` over some of the hosts."""
    command = ["ansible-playbook", "-i", str(PROJECT / "inventories/lab"), f"playbooks/ops/{playbook}.yml", f"--extra-vars={json.dumps(variables)}"]
    return subprocess.run([*command, limit], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=900)


def operate(playbook: str, limit: str = LIMIT, **variables: object) -> str:
    """Run a playbook of ``playbooks/ops``, which must succeed; give what it printed."""
    run = play(playbook, limit, **variables)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr
    return run.stdout


@contextmanager
def load(service: str, *options: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Write into a service from the client's host all the while; what is given ends that and tells what came of it.

    The client reads its password anew for each session: the former one, until servers have accepted its successor, as clients are told last.
    """
    name = f"/var/lib/sovereign/drill/{uuid.uuid4().hex}"
    execute(CLIENT, "mkdir", "-p", "/var/lib/sovereign/drill")
    execute(CLIENT, "sh", "-c", f"cat > {name}.py", stdin=(PROJECT / "playbooks/drills/files/ledger_load.py").read_text())
    secret = STATE / "secrets" / SECRETS[service] / "drill"
    former = secret.with_name(f"{secret.name}.retiring")
    told, over = "", threading.Event()

    def tell() -> None:
        nonlocal told
        while True:
            if secret.exists() and not former.exists() and (now := secret.read_text()) != told:
                execute(CLIENT, "sh", "-c", f"umask 077; cat > {name}.new && mv {name}.new {name}.password", stdin=now)
                told = now
            if over.wait(0.2):
                return

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    while not told:
        time.sleep(0.1)
    program = ["python3", f"{name}.py", "--service", service, "--user", "drill", "--password-file", f"{name}.password", "--database", "drill"]
    program += ["--port", str(PORTS["local"][service])]
    # Ten a second: what is operated shares two cores with those who write.
    program += ["--interval", "0.1", "--seconds", "900", "--started", f"{name}.started", "--stop", f"{name}.stop"]
    command = ["docker", "exec", f"lab-{CLIENT}", *program, *options]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while execute(CLIENT, "test", "-e", f"{name}.started", check=False).returncode:
            assert client.poll() is None, client.communicate()
            time.sleep(0.2)

        def end() -> dict[str, Any]:
            execute(CLIENT, "touch", f"{name}.stop")
            out, errors = client.communicate(timeout=180)
            assert out, errors
            report: dict[str, Any] = json.loads(out)
            print(service, {key: report[key] for key in ("acknowledged", "failed", "lost", "longest_gap_s", "reads", "errors")})
            return report

        yield end
    finally:
        over.set()
        teller.join()
        client.kill()
        client.wait()


def test_object_storage_is_restarted_without_a_request_refused() -> None:
    # One that meets a server in its restart waits for another one's answer, two to three seconds on a busy machine; clients of S3 wait for a minute.
    with load("object_storage", "--timeout", "10") as end:
        operate("rolling_restart", service="object_storage")
        report = end()
    assert (report["lost"], report["failed"]) == (0, 0), report
    assert report["longest_gap_s"] < 10, report
    assert report["acknowledged"] > 50, report


def test_redis_passwords_are_replaced_and_clients_go_on() -> None:
    secrets = STATE / "secrets/redis"
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    # Dify would restart for its own; what it asks of this playbook is a role's run, which the upgrade shows.
    users = sorted(name for name in before if not name.startswith("dify"))
    # A host that was left out would be locked out, and nobody would see it before Redis has another client there.
    refused = play("rotate_passwords", LIMIT, service="redis", users=",".join(users))
    assert refused.returncode != 0
    assert "--limit leaves out hq-app2" in " ".join(refused.stdout.split()), refused.stdout
    assert before == {path.name: path.read_text() for path in secrets.iterdir()}
    with load("redis") as end:
        operate("rotate_passwords", f"{LIMIT},hq-app2", service="redis", users=",".join(users))
        report = end()
    after = {path.name: path.read_text() for path in secrets.iterdir()}
    assert set(after) == set(before)
    assert sorted(name for name in before if after[name] != before[name]) == users
    assert report["lost"] == 0, report
    assert report["longest_gap_s"] < 10, report
    port = PORTS["local"]["redis"]
    login = ["python3", "-c", f"import redis, sys; redis.Redis(port={port}, username='drill', password=sys.stdin.read().strip()).ping()"]
    assert execute(CLIENT, *login, stdin=after["drill"], check=False).returncode == 0
    assert execute(CLIENT, *login, stdin=before["drill"], check=False).returncode != 0


def test_one_member_leads_and_the_others_follow_again() -> None:
    asked = ["su", "-s", "/bin/sh", "postgres", "-c", "psql -Atc 'select pg_is_in_recovery()'"]

    def whole() -> bool:
        # The drills have cut one off, which takes back what it had alone, and does not answer meanwhile.
        return sorted(execute(host, *asked, check=False).stdout.strip() for host in DATA_HOSTS) == ["f", "t", "t"]

    wait_until(whole, "one member leads and two follow", limit=120)


def test_postgresql_is_restarted_without_a_row_lost_or_a_read_refused() -> None:
    with load("postgresql", "--read-port", str(PORTS["local"]["postgresql_read"])) as end:
        operate("rolling_restart", service="patroni")
        report = end()
    assert report["lost"] == 0, report
    assert report["longest_gap_s"] < 10, report
    assert report["reads"]["read"] > 100, report
    assert report["reads"]["failed"] == 0, report


def test_a_host_that_has_lost_everything_is_replaced_while_clients_write() -> None:
    lost = "hq-db3"
    with load("postgresql", "--read-port", str(PORTS["local"]["postgresql_read"])) as rows, load("redis") as members, load("rabbitmq") as messages:
        operate("remove_member", member=lost, confirm=lost)
        forgotten = ("/var/lib/etcd/sovereign", "/var/lib/postgresql/17/main", "/var/lib/redis", "/var/lib/rabbitmq/mnesia")
        execute(lost, "sh", "-c", f"rm -rf {forgotten[0]} {forgotten[1]} {forgotten[2]}/* {forgotten[3]}")
        operate("add_member", member=lost)
        reports = [rows(), members(), messages()]
    for report in reports:
        assert report["lost"] == 0, report
        assert report["acknowledged"] > 500, report
    nodes = json.loads(execute("hq-db1", "rabbitmqctl", "-q", "--formatter", "json", "cluster_status").stdout)
    assert len(nodes["running_nodes"]) == 3
    members_told = json.loads(execute("hq-db1", "patronictl", "-c", "/etc/patroni/config.yml", "list", "-f", "json").stdout)
    assert sorted(member["State"] for member in members_told) == ["running", "streaming", "streaming"]
    listed = execute("hq-db1", "bash", "--login", "-c", "etcdctl member list").stdout.splitlines()
    assert sorted(line.split(", ")[1:3] for line in listed) == [["started", host] for host in DATA_HOSTS], listed


def test_another_member_of_redis_leads_when_it_is_asked_to() -> None:
    def master() -> str:
        return execute("hq-db1", "redis-admin", "sentinel", "get-master-addr-by-name", "mymaster").stdout.split()[0]

    before = master()
    with load("redis") as end:
        operate("switchover", service="redis")
        report = end()
    assert master() != before
    assert report["lost"] == 0, report
    assert report["longest_gap_s"] < 8, report
