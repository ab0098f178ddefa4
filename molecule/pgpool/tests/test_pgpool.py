"""Pgpool-II on a client's host: what goes where, what a session sees of its own writes, and what happens when somebody else leads."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from two_members import MEMBERS, Site, docker, wait_until

from lab.testing import changed, rerun, tls_faults

WHERE = "SELECT inet_server_addr()"
PORT = 5434

# Runs on the client's host: in each of some sessions writes a number and reads it at once, connects again where it was cut off, and keeps a ledger.
LEDGER = """
import json, os, sys, threading, time
import psycopg2
job = json.load(sys.stdin)
begun = time.monotonic()
acknowledged, failures, missed = [], [], []
def work(worker):
    writing = reading = None
    number = 0
    while not os.path.exists(job["stop"]) and time.monotonic() - begun < job["limit"]:
        try:
            if writing is None:
                writing = psycopg2.connect(job["write"])
                writing.autocommit = True
                reading = writing
                if job["read"]:
                    reading = psycopg2.connect(job["read"])
                    reading.autocommit = True
            number += 1
            with writing.cursor() as cursor:
                cursor.execute("INSERT INTO ledger VALUES (%s, %s)", (worker, number))
            acknowledged.append((worker, number, time.monotonic() - begun))
            with reading.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM ledger WHERE worker = %s AND number = %s", (worker, number))
                if cursor.fetchone()[0] != 1:
                    missed.append((worker, number))
        except psycopg2.Error as error:
            failures.append((time.monotonic() - begun, str(error).strip()[:100]))
            writing = None
            time.sleep(0.2)
workers = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
print(json.dumps({"acknowledged": acknowledged, "failures": failures, "missed": missed}))
"""


def ledger(site: Site, meanwhile: Callable[[], Any], write: int = PORT, read: int | None = None) -> dict[str, Any]:
    """Write and read back for as long as ``meanwhile`` lasts; with ``read``, read by another connection to that port."""
    dsn = f"host=127.0.0.1 user=app dbname=app password={site.password('app')} connect_timeout=3 port="
    site.inside(site.leader(), "DROP TABLE IF EXISTS ledger; CREATE TABLE ledger (worker int, number int, PRIMARY KEY (worker, number))", "app")
    site.inside(site.leader(), "ALTER TABLE ledger OWNER TO app", "app")
    job = {"write": f"{dsn}{write}", "read": f"{dsn}{read}" if read else "", "stop": "/run/stop", "limit": 90}
    site.on("client").check_output("rm -f /run/stop")
    command = ["docker", "exec", "--interactive", "mol-pgpool-client", "python3", "-c", LEDGER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin
        worker.stdin.write(json.dumps(job))
        worker.stdin.close()
        worker.stdin = None
        try:
            meanwhile()
        finally:
            site.on("client").check_output("touch /run/stop")
        report: dict[str, Any] = json.loads(worker.communicate(timeout=60)[0])
    kept = {tuple(map(int, line.split("|"))) for line in site.inside(site.leader(), "SELECT worker, number FROM ledger", "app").split()}
    report["lost"] = [entry for entry in report["acknowledged"] if (entry[0], entry[1]) not in kept]
    moments = sorted(moment for _, _, moment in report["acknowledged"])
    report["gap"] = max((later - earlier for earlier, later in pairwise(moments)), default=0.0)
    return report


def written(site: Site) -> int:
    """How many numbers the leader has in the ledger."""
    return int(site.inside(site.leader(), "SELECT count(*) FROM ledger", "app"))


def nodes(site: Site) -> list[tuple[str, str]]:
    """Status and part of each backend, as Pgpool-II sees it."""
    rows = [line.split("|") for line in site.psql(PORT, "SHOW POOL_NODES").stdout.splitlines()]
    return [(row[3], row[6]) for row in rows]


CLIENTS = 4


def reads(site: Site, options: str, transactions: int) -> dict[str, int]:
    """Run pgbench through Pgpool-II, and count where PostgreSQL answered its SELECTs, one a transaction: by member, as each server itself counts."""
    for host in MEMBERS:
        site.inside(host, "SELECT pg_stat_statements_reset()")
    printed = site.bench(PORT, f"-n -c {CLIENTS} -j 2 -t {transactions // CLIENTS} {options}")
    assert f"actually processed: {transactions}/{transactions}" in printed
    counted = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE 'SELECT abalance%'"
    return {host: int(site.inside(host, counted)) for host in MEMBERS}


@pytest.fixture(scope="module", autouse=True)
def counting(site: Site) -> None:
    """Have PostgreSQL's own counts of statements be seen."""
    site.inside(site.leader(), "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    wait_until(lambda: site.inside(site.follower(), "SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'") == "1", 10)


def test_reads_leave_the_primary_until_the_session_writes(site: Site) -> None:
    follower, leader = MEMBERS[site.follower()], MEMBERS[site.leader()]
    site.psql(PORT, "CREATE TABLE IF NOT EXISTS notes (said text)")
    dsn = f"host=127.0.0.1 port={PORT} user=app dbname=app"
    command = f"PGPASSWORD={site.password('app')} psql --no-psqlrc -qAtd '{dsn}'"
    said = [WHERE, "INSERT INTO notes VALUES ('hello') RETURNING inet_server_addr()", WHERE, "SELECT count(*) > 0 FROM notes"]
    answers = site.on("client").check_output(command + "".join(f' -c "{sql}"' for sql in said)).split()
    assert answers == [follower, leader, leader, "t"]
    # Another session reads from the replica again; one that locks what it reads does not.
    assert site.psql(PORT, WHERE).stdout.strip() == follower
    assert site.psql(PORT, "SELECT inet_server_addr() FROM notes LIMIT 1 FOR UPDATE").stdout.strip() == leader


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_most_reads_leave_the_primary_where_nobody_writes(site: Site, protocol: str) -> None:
    counts = reads(site, f"-S -M {protocol}", 1000)
    assert sum(counts.values()) == 1000
    share = counts[site.follower()] / sum(counts.values())
    print(f"\nselect-only, {protocol}: {share:.1%} of {sum(counts.values())} reads on the replica")
    assert share > 0.99, counts


def test_reads_of_a_writing_transaction_stay_with_the_primary(site: Site) -> None:
    assert reads(site, "-b tpcb-like -M prepared", 200) == {site.leader(): 200, site.follower(): 0}


def test_who_is_let_in_and_who_is_not(site: Site, on: Any) -> None:
    assert site.psql(PORT, "SELECT current_user").stdout == "app\n"
    assert site.psql(PORT, "SELECT current_user", "other", more="sslmode=disable").stdout == "other\n"
    assert site.psql(PORT, "SELECT current_user", "other", more="sslmode=require").stdout == "other\n"
    assert "authentication failed" in site.psql(PORT, "SELECT 1", password="wrong").stderr
    for user in ("postgres", "rewinder"):
        assert "authentication failed" in site.psql(PORT, "SELECT 1", user, password="none").stderr
    # Between the hosts everything is in TLS, also for a client that speaks none.
    client = "client_addr = '198.18.51.21' AND usename IN ('app', 'other')"
    for host in MEMBERS:
        assert site.inside(host, f"SELECT count(*) > 0, bool_and(ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE {client}") == "t|t"  # noqa: S608
    listening = on("client").check_output("ss --no-header --listening --tcp --numeric --processes | grep pgpool").splitlines()
    assert {line.split()[3] for line in listening} == {f"127.0.0.1:{PORT}"}
    assert on("client").check_output("ps -o user= -C pgpool | sort -u") == "pgpool"
    assert on("client").run("grep -rlF -e %s /etc/pgpool2 /run/pgpool", site.password("app")).rc == 1


def test_one_session_too_many_is_refused_at_once(site: Site) -> None:
    # The role's default is 30, the scenario's 20.
    password = site.password("app")
    source = f"""
import psycopg2
dsn = "host=127.0.0.1 port={PORT} user=app dbname=app password={password} connect_timeout=5 sslmode=disable"
held = []
try:
    for _ in range(30):
        held.append(psycopg2.connect(dsn))
except psycopg2.OperationalError as error:
    print(len(held), error)
"""
    held, _, complaint = site.on("client").check_output(f"python3 -c '{source}'").partition(" ")
    assert int(held) == 20
    assert "too many clients" in complaint


def test_a_session_reads_what_it_has_written(site: Site) -> None:
    report = ledger(site, lambda: wait_until(lambda: written(site) > 200, 60))
    assert len(report["acknowledged"]) > 200
    assert (report["failures"], report["missed"], report["lost"]) == ([], [], [])
    # What is at stake: the same with a connection for writing, and one for reading from the replica.
    apart = ledger(site, lambda: time.sleep(3), write=5432, read=5433)
    print(f"\nmissed by reading from the replica at once: {len(apart['missed'])} of {len(apart['acknowledged'])}")


OWN = r"SELECT coalesce(max(number), 0) AS seen FROM own \gset"
AFTER = "INSERT INTO own VALUES (:seen + 1);"


@pytest.mark.parametrize(
    ("protocol", "script", "commit"),
    [
        ("simple", [OWN, AFTER], "on"),
        ("extended", [OWN, AFTER], "on"),
        ("prepared", ["BEGIN;", OWN, AFTER, "END;"], "on"),
        # Pgpool-II sends a named prepared statement to where it was prepared, outside of transactions even after a write.
        ("prepared", [OWN, AFTER], "remote_apply"),
    ],
)
def test_a_session_counts_on_from_what_it_has_written(site: Site, protocol: str, script: list[str], commit: str) -> None:
    site.psql(5432, "DROP TABLE IF EXISTS own; CREATE TABLE own (number int PRIMARY KEY)")
    site.on("client").run_expect([0], f"printf %s {shlex.quote(chr(10).join(script))} > /root/own.sql")
    # Until the replica has the new table, and no longer the one before.
    written_so_far = site.inside(site.leader(), "SELECT pg_current_wal_lsn()")
    wait_until(lambda: site.inside(site.follower(), f"SELECT pg_last_wal_replay_lsn() >= '{written_so_far}'") == "t", 30)
    # Whoever does not see what he has written writes the same number once more, and is refused.
    printed = site.bench(PORT, f"-f /root/own.sql -n -c 1 -t 200 -M {protocol}", f"-csynchronous_commit={commit}")
    assert "actually processed: 200/200" in printed
    assert site.psql(5432, "SELECT max(number) = count(*) FROM own").stdout == "t\n"


def test_whoever_leads_now_is_followed_without_a_hand(site: Site, on: Any) -> None:
    old, successor = site.leader(), site.follower()

    def switch() -> None:
        wait_until(lambda: written(site) > 50, 30)
        on(old).check_output(f"bash --login -c 'timeout 60 patronictl switchover --leader {old} --candidate {successor} --force'")
        wait_until(lambda: sorted(site.roles().values()) == ["leader", "sync_standby"], 60)
        before = written(site)
        wait_until(lambda: written(site) > before + 50, 30)

    report = ledger(site, switch)
    print(f"\nswitchover: {report['gap']:.1f} s without a write, {len(report['acknowledged'])} acknowledged, {len(report['failures'])} failures")
    assert report["lost"] == []
    assert report["missed"] == []
    assert report["failures"], "sessions with the former primary must be cut"
    assert report["gap"] < 15
    site.wait_until_whole()
    assert site.leader() == successor
    assert nodes(site) == [("up", "primary"), ("up", "standby")]
    assert site.psql(PORT, WHERE).stdout.strip() == MEMBERS[old]
    assert site.psql(PORT, "INSERT INTO notes VALUES ('after') RETURNING inet_server_addr()").stdout.strip() == MEMBERS[successor]
    # PgBouncer is followed likewise.
    assert site.psql(6432, WHERE).stdout.strip() == MEMBERS[successor]


def test_without_a_replica_the_primary_is_read_from_until_there_is_one(site: Site) -> None:
    leader, follower = site.leader(), site.follower()
    docker("kill", f"mol-pgpool-{follower}")
    try:
        wait_until(lambda: bool(site.psql(PORT, WHERE).stdout.strip() == MEMBERS[leader]), 30)
        assert nodes(site)[0] == ("up", "primary")
        assert site.psql(PORT, "INSERT INTO notes VALUES ('alone') RETURNING inet_server_addr()").stdout.strip() == MEMBERS[leader]
    finally:
        docker("start", f"mol-pgpool-{follower}")
    site.wait_until_whole()
    wait_until(lambda: bool(site.psql(PORT, WHERE).stdout.strip() == MEMBERS[follower]), 90)
    assert nodes(site) == [("up", "primary"), ("up", "standby")]


def test_a_killed_pgpool_is_back_at_once(site: Site, on: Any) -> None:
    process = "systemctl show --property=MainPID --value pgpool2"
    before = on("client").check_output(process)
    on("client").check_output("systemctl kill --signal=KILL pgpool2")
    wait_until(lambda: bool(site.psql(PORT, WHERE).rc == 0), 15)
    assert on("client").check_output(process) != before
    assert nodes(site) == [("up", "primary"), ("up", "standby")]


def test_a_run_that_was_cut_before_the_restart_is_finished_by_the_next(site: Site) -> None:
    def sessions() -> str:
        return str(site.psql(PORT, "PGPOOL SHOW num_init_children").stdout.strip())

    try:
        changed(rerun("--tags=pgpool_configure", "--limit=client", pgpool_sessions=21))
        assert sessions() == "21"
        assert changed(rerun("--tags=pgpool", "--limit=client", pgpool_sessions=21)) == {"client": 1}
        assert sessions() == "22"
        assert changed(rerun("--tags=pgpool", "--limit=client", pgpool_sessions=21)) == {"client": 0}
    finally:
        changed(rerun("--tags=pgpool", "--limit=client"))


def test_more_connections_than_postgresql_has_are_refused_before_anything_changes() -> None:
    run = rerun("--tags=preflight", "--limit=client", pgpool_sessions=26)
    assert run.returncode != 0
    assert re.search(r"could come to 152, and it has 150 \(patroni_max_connections\)", " ".join(run.stdout.split()))


def test_old_cipher_suites_are_refused(on: Any) -> None:
    assert tls_faults(on("client"), f"127.0.0.1:{PORT}", options="-starttls postgres") == []
