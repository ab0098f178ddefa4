"""What clients find at 127.0.0.1, and what happens to them when somebody else leads."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.testing import PROJECT, changed, rerun

SERVICES = ("postgresql", "redis", "rabbitmq")
LOAD = PROJECT / "playbooks/drills/files/ledger_load.py"


@pytest.fixture(scope="session")
def password(contract: Any) -> Callable[[str], str]:
    """Give a function that tells the password of the account ``drill`` in a service."""
    secrets = Path(contract("client")["cluster"]["state_dir"]) / "secrets"
    return lambda service: (secrets / service / "drill").read_text().strip()


@pytest.fixture(scope="session")
def load(on: Any, password: Callable[[str], str]) -> Callable[..., dict[str, Any]]:
    """Give a function that writes into a service from the client's host for some seconds, and reports what was kept."""
    client = on("client")
    source = LOAD.read_text()
    client.run_expect([0], f"printf %s {shlex.quote(source)} > /root/ledger_load.py")

    def run(service: str, seconds: float = 3, **options: object) -> dict[str, Any]:
        secret = password({"postgresql": "patroni"}.get(service, service))
        client.run_expect([0], f"umask 077; printf %s {shlex.quote(secret)} > /root/password-{service}")
        database = "" if service == "redis" else "drill"
        more = " ".join(f"--{name}={value}" for name, value in options.items())
        command = f"python3 /root/ledger_load.py --service={service} --user=drill --password-file=/root/password-{service} --database={database}"
        printed = client.run_expect([0, 1], f"{command} --seconds={seconds} --recovery=30 {more}").stdout
        report: dict[str, Any] = json.loads(printed)
        return report

    return run


@pytest.fixture(scope="session")
def psql(on: Any, password: Callable[[str], str]) -> Callable[..., Any]:
    """Give a function that runs a statement from the client's host."""

    def run(statement: str, port: int = 5432) -> Any:
        environment = f"PGPASSWORD={shlex.quote(password('patroni'))} PGCONNECT_TIMEOUT=5"
        return on("client").run(f"{environment} psql -h 127.0.0.1 -p {port} -U drill -d drill -Atc {shlex.quote(statement)}")

    return run


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_keeps_what_it_acknowledges(load: Callable[..., dict[str, Any]], service: str) -> None:
    report = load(service)
    assert report["acknowledged"] > 20, report
    assert (report["lost"], report["repeated"], report["failed"]) == (0, 0, 0), report


def test_a_wrong_password_is_refused_by_the_service_itself(on: Any, psql: Callable[..., Any]) -> None:
    assert psql("select 1").stdout == "1\n"
    assert "password authentication failed" in on("client").run("PGPASSWORD=wrong psql -h 127.0.0.1 -U drill -d drill -c 'select 1'").stderr
    assert "WRONGPASS" in on("client").run("redis-cli -p 6379 --user drill --pass wrong ping 2>&1").stdout


def test_postgresql_is_spoken_to_in_tls_from_end_to_end_and_not_in_clear(on: Any, psql: Callable[..., Any], password: Callable[[str], str]) -> None:
    assert psql("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()").stdout == "t|TLSv1.3\n"
    connect = f"host=127.0.0.1 dbname=drill user=drill password={password('patroni')}"
    bound = f"{connect} channel_binding=require sslmode=verify-ca sslrootcert=/etc/sovereign/pki/ca.crt"
    assert on("client").check_output(f"psql '{bound}' -Atc 'select 1'") == "1"
    assert "no encryption" in on("client").run(f"psql '{connect} sslmode=disable' -c 'select 1'").stderr


def test_redis_takes_no_clear_words_from_the_network(on: Any, contract: Any, password: Callable[[str], str]) -> None:
    ping = f"timeout 5 redis-cli --user drill --pass {shlex.quote(password('redis'))} --no-auth-warning"
    assert on("client").check_output(f"{ping} -p 6379 ping") == "PONG"
    assert "PONG" not in on("client").run(f"{ping} -h {contract('data')['node']['address']} -p 6379 ping").stdout


def test_reading_goes_to_the_primary_where_there_is_no_replica(psql: Callable[..., Any]) -> None:
    assert psql("select pg_is_in_recovery()", port=5433).stdout == "f\n"


def test_nothing_listens_but_on_loopback(on: Any) -> None:
    listening = on("client").check_output("ss --no-header --listening --tcp --numeric").splitlines()
    local = {line.split()[3] for line in listening}
    assert {"127.0.0.1:5432", "127.0.0.1:5433", "127.0.0.1:6379", "127.0.0.1:5672", "127.0.0.1:8407"} <= local
    assert {address.rsplit(":", 1)[1] for address in local if not address.startswith(("127.", "[::1]"))} == {"22"}


def test_whoever_leads_no_longer_loses_its_sessions_those_of_before_a_reload_too(on: Any, psql: Callable[..., Any]) -> None:
    """The agent that says who leads is stopped; PostgreSQL itself still answers, and must not be written to."""
    sleeping = "select count(*) from pg_stat_activity where query ~ 'pg_sleep.60'"
    with ThreadPoolExecutor() as pool:
        sessions = [pool.submit(psql, "select pg_sleep(60)")]
        wait_until(lambda: psql(sleeping).stdout == "2\n", 10)
        on("client").run_expect([0], "systemctl reload service_proxy")
        sessions.append(pool.submit(psql, "select pg_sleep(60)"))
        wait_until(lambda: psql(sleeping).stdout == "3\n", 10)
        on("data").run_expect([0], "systemctl kill --kill-whom=main --signal=STOP patroni")
        try:
            for session in sessions:
                assert "connection to server was lost" in session.result(timeout=20).stderr
            assert psql("select 1").rc != 0
        finally:
            on("data").run_expect([0], "systemctl kill --kill-whom=main --signal=CONT patroni")
    wait_until(lambda: bool(psql("select 1").rc == 0), 30)


STARTING_CLIENTS = """
import json, socket, sys, threading, time
port, greeting, count = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
ends = []
def client():
    # As psycopg2 under gevent: no time limit of its own for connecting, and it waits for an answer to its first bytes.
    session = socket.create_connection(("127.0.0.1", port))
    session.settimeout(40)
    started = time.monotonic()
    try:
        session.sendall(greeting)
        while session.recv(4096):
            pass
    except TimeoutError:
        return ends.append("hung")
    except OSError:
        pass
    ends.append(round(time.monotonic() - started, 1))
clients = [threading.Thread(target=client) for number in range(count)]
for thread in clients:
    thread.start()
    time.sleep(0.1)
print("started", flush=True)
for thread in clients:
    thread.join()
print(json.dumps(ends))
"""


@pytest.mark.parametrize(
    ("service", "port", "greeting"),
    [
        ("postgresql", 5432, "0000000804d2162f"),
        ("redis", 6379, b"*1\r\n$4\r\nPING\r\n".hex()),
        ("rabbitmq", 5672, b"AMQP\0\0\x09\x01".hex()),
    ],
)
def test_no_client_hangs_that_connects_while_a_server_falls_silent(on: Any, service: str, port: int, greeting: str) -> None:
    """Packets are dropped while clients connect: before, during and after the checks find out."""
    data = on("data")
    table = "nft add table ip silence; nft add chain ip silence in '{ type filter hook input priority -300; }'"
    ports = {"postgresql": "{5432, 8008}", "redis": "6379", "rabbitmq": "5671"}[service]
    with ThreadPoolExecutor() as pool:
        program = f"python3 -c {shlex.quote(STARTING_CLIENTS)} {port} '{greeting}' 80"
        clients = pool.submit(on("client").run, program)
        time.sleep(2)
        data.run_expect([0], f"{table}; nft add rule ip silence in tcp dport '{ports}' drop")
        try:
            ends = json.loads(clients.result(timeout=120).stdout.splitlines()[-1])
        finally:
            data.run_expect([0], "nft delete table ip silence")
    assert len(ends) == 80
    assert "hung" not in ends, ends
    assert max(ends) < 30, ends
    wait_until(lambda: rerun("--limit=client", "--tags=verify").returncode == 0, 60)


def test_sessions_end_with_a_server_that_is_frozen(on: Any, password: Callable[[str], str]) -> None:
    """Its kernel still acknowledges what arrives, so that no time-out of TCP ends them."""
    command = f"redis-cli -p 6379 --user drill --pass {shlex.quote(password('redis'))} --no-auth-warning"
    assert on("client").check_output(f"{command} ping") == "PONG"
    with ThreadPoolExecutor() as pool:
        session = pool.submit(on("client").run, f"timeout 40 {command} blpop nothing-comes 0")
        time.sleep(1)
        on("data").run_expect([0], "systemctl kill --kill-whom=main --signal=STOP redis-server")
        try:
            started = time.monotonic()
            assert session.result(timeout=60).rc != 124
            assert time.monotonic() - started < 15
        finally:
            on("data").run_expect([0], "systemctl kill --kill-whom=main --signal=CONT redis-server")
    wait_until(lambda: on("client").run(f"{command} ping").stdout == "PONG\n", 30)


def test_what_ends_sessions_is_started_again_however_it_ended(on: Any) -> None:
    client = on("client")
    client.run_expect([0], "systemctl stop service_proxy_sessions")
    wait_until(lambda: bool(client.run("systemctl is-active service_proxy_sessions").rc == 0), 10)


def test_a_service_that_nobody_answers_for_fails_the_run_and_is_named(on: Any) -> None:
    assert rerun("--limit=client", "--tags=verify").returncode == 0
    on("data").run_expect([0], "systemctl stop rabbitmq-server")
    try:
        run = rerun("--limit=client", "--tags=verify", service_proxy_verify_timeout=10)
        assert run.returncode != 0
        assert "nobody answers for rabbitmq: data DOWN" in " ".join(run.stdout.split())
    finally:
        on("data").run_expect([0], "systemctl start rabbitmq-server")


def test_a_reload_ends_no_session(on: Any, load: Callable[..., dict[str, Any]]) -> None:
    with ThreadPoolExecutor() as pool:
        report = pool.submit(load, "postgresql", 6)
        for _ in range(2):
            time.sleep(2)
            on("client").run_expect([0], "systemctl reload service_proxy")
    assert report.result()["failed"] == 0, report.result()


def test_a_service_of_others_is_reached_through_the_proxy_too(on: Any, contract: Any, password: Callable[[str], str]) -> None:
    """Redis is declared as somebody else's; the client speaks TLS to it itself. A run is cut once it has written that; the next one finishes it."""
    client = on("client")

    def running() -> tuple[str, str]:
        """The proxy's process, and how many former processes the program that ends sessions lets be: its argument before the backends'."""
        proxy, sessions = client.check_output("systemctl show --property=MainPID --value service_proxy service_proxy_sessions").split()
        return proxy, client.check_output(f"tr '\\0' '\\n' </proc/{sessions}/cmdline | tail -2 | head -1")

    address = contract("data")["node"]["address"]
    external = {"redis": {"host": address, "port": 6379, "tls": "client", "read_host": address}, "postgresql": None, "rabbitmq": None}
    nobody: dict[str, Any] = {"service_proxy_redis": [], "service_proxy_external": external, "service_proxy_former_processes": 5}
    own = "--tls --cacert /etc/sovereign/pki/ca.crt --cert /etc/sovereign/pki/host.crt --key /etc/sovereign/pki/host.key --sni data.proxy.test"
    ping = f"timeout 5 redis-cli -p 6379 {own} --user drill --pass {shlex.quote(password('redis'))} --no-auth-warning ping"
    process = running()[0]
    try:
        changed(rerun("--limit=client", "--tags=service_proxy_configure", **nobody))
        assert "PONG" not in client.run(ping).stdout
        assert running() == (process, "4")
        assert changed(rerun("--limit=client", "--tags=service_proxy", **nobody)) == {"client": 1}
        wait_until(lambda: client.run(ping).stdout == "PONG\n", 10)
        # What ends sessions was restarted, the proxy only reloaded.
        assert running() == (process, "5")
        assert changed(rerun("--limit=client", "--tags=service_proxy", **nobody)) == {"client": 0}
    finally:
        assert rerun("--limit=client", "--tags=service_proxy").returncode == 0


def test_metrics_say_who_is_up(on: Any) -> None:
    metrics = on("client").check_output("curl -s http://127.0.0.1:8407/metrics")
    assert 'haproxy_server_status{proxy="postgresql",server="data",state="UP"} 1' in metrics
