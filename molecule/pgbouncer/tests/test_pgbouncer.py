"""PgBouncer in front of PostgreSQL: who is let in, what is shared, and what clients see when something fails."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from one_member import ADDRESS, PKI, Site, wait_until

from lab.testing import changed, rerun, tls_faults


@pytest.mark.parametrize("port", [6432, 6433], ids=["writing", "reading, where there is no replica"])
def test_clients_are_sent_to_whoever_leads(site: Site, port: int) -> None:
    # It is PgBouncer who comes to PostgreSQL, from the same host, and in TLS.
    where = "SELECT inet_client_addr(), inet_server_addr(), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert site.psql(port, where).stdout == f"{ADDRESS}|{ADDRESS}|t\n"


def test_who_is_let_in_and_who_is_not(site: Site) -> None:
    assert site.psql(6432, "SELECT current_user", more=f"sslmode=verify-ca sslrootcert={PKI}/ca.crt").stdout == "app\n"
    assert site.psql(6432, "SELECT current_user", "other").stdout == "other\n"
    assert "SASL authentication failed" in site.psql(6432, "SELECT 1", password="wrong").stderr
    assert "SSL required" in site.psql(6432, "SELECT 1", more="sslmode=disable").stderr
    # Those whom PostgreSQL lets in from members alone do not come in by a member's PgBouncer, not even with their passwords.
    for user in ("rewinder", "replicator"):
        assert "no such user" in site.psql(6432, "SELECT 1", user).stderr
    for user in ("postgres", "pgbouncer"):
        assert site.psql(6432, "SELECT 1", user, password="").rc != 0
    # What is not named is not offered, and where users are looked up nobody else gets in.
    assert "authentication failed" in site.psql(6432, "SELECT 1", database="template1").stderr
    assert "Peer authentication failed" in site.psql(6432, "SELECT 1", database="pgbouncer_lookup").stderr


def test_verifiers_are_told_to_pgbouncer_alone(site: Site, on: Any) -> None:
    asked = "SELECT verifier FROM pooler.lookup('other')"
    assert "permission denied" in site.psql(5432, asked, database="postgres").stderr
    command = "setpriv --reuid=pgbouncer --regid=pgbouncer --clear-groups psql -qAtd postgres -c"
    assert on("db").check_output(f'{command} "{asked}"').startswith("SCRAM-SHA-256$")
    for name in ("postgres", "replicator", "rewinder", "pgbouncer"):
        assert on("db").check_output(command + f' "{asked.replace("other", name)}"') == ""
    assert on("db").run("grep -r SCRAM-SHA-256 /etc/pgbouncer").rc == 1
    assert on("db").check_output("ps -o user= -C pgbouncer") == "pgbouncer"


def test_forty_clients_share_four_connections(site: Site) -> None:
    with ThreadPoolExecutor() as pool:
        printed = pool.submit(site.bench, 6432, "-S -M prepared -c 40 -j 2 -t 200 -n")
        counts = []
        while not printed.done():
            counts.append(int(site.inside("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")))
    assert "actually processed: 8000/8000" in printed.result()
    assert 0 < max(counts) <= 4, counts
    tps = re.search(r"tps = (\d+)", printed.result())
    print(f"\n40 clients on {max(counts)} connections: {tps.group(1) if tps else '?'} transactions a second")


def test_whoever_gets_no_connection_is_told_so(site: Site) -> None:
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(site.psql, 6432, "SELECT pg_sleep(8)") for _ in range(4)]
        taken = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND query LIKE '%pg_sleep%'"
        wait_until(lambda: site.inside(taken) == "4", 8)
        begun = time.monotonic()
        refused = site.psql(6432, "SELECT 1")
        assert "query_wait_timeout" in refused.stderr
        assert 2 < time.monotonic() - begun < 6
    assert [answer.result().rc for answer in held] == [0] * 4


def test_a_new_password_holds_at_once(site: Site) -> None:
    old = site.password("other")
    verifier = site.inside("SELECT rolpassword FROM pg_authid WHERE rolname = 'other'")
    assert site.psql(6432, "SELECT 1", "other").rc == 0
    site.inside("ALTER ROLE other PASSWORD 'a-new-password-of-sufficient-length'")
    try:
        assert site.psql(6432, "SELECT 1", "other", password="a-new-password-of-sufficient-length").rc == 0
        assert site.psql(6432, "SELECT 1", "other", password=old).rc != 0
    finally:
        site.inside(f"ALTER ROLE other PASSWORD '{verifier}'")
    assert site.psql(6432, "SELECT 1", "other").rc == 0


def test_old_cipher_suites_are_refused(on: Any) -> None:
    assert tls_faults(on("client"), f"{ADDRESS}:6432", ["TLSv1.3"], "-starttls postgres") == []


def test_a_renewed_certificate_is_shown_after_a_reload_that_ends_no_session(site: Site, on: Any) -> None:
    show = f"openssl s_client -starttls postgres -connect {ADDRESS}:6432 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    before = on("client").check_output(show)
    with site.session(6432) as ask:
        # In the middle of a transaction: on the same connection to PostgreSQL before and after.
        connection = ask("BEGIN; SELECT pg_backend_pid();")
        assert connection.isdigit()
        run = rerun("--tags=pki_rotate", "--limit=db")
        assert run.returncode == 0, run.stdout
        wait_until(lambda: bool(on("client").check_output(show) != before), 10)
        assert ask("SELECT pg_backend_pid();") == connection
        assert ask("COMMIT; SELECT 'and on it goes';") == "and on it goes"


@pytest.mark.parametrize("signal", ["STOP", "KILL"])
def test_a_pgbouncer_that_does_not_answer_is_seen_and_postgresql_goes_on(site: Site, on: Any, signal: str) -> None:
    before = site.process()
    on("db").check_output(f"systemctl kill --signal={signal} pgbouncer")
    if signal == "STOP":
        try:
            # PostgreSQL leads, but PgBouncer does not answer: nobody is sent to it any more, nor waits for it.
            wait_until(lambda: "server closed the connection" in site.psql(6432, "SELECT 1").stderr, 20)
            assert site.psql(5432, "SELECT 1").rc == 0
        finally:
            on("db").check_output("systemctl kill --signal=CONT pgbouncer")
    wait_until(lambda: bool(site.psql(6432, "SELECT 1").rc == 0), 20)
    assert (site.process() != before) == (signal == "KILL")


def test_a_run_that_was_cut_before_the_reload_is_finished_by_the_next(site: Site, on: Any) -> None:
    console = "setpriv --reuid=pgbouncer --regid=pgbouncer --clear-groups psql -Atc 'SHOW CONFIG' -h /run/pgbouncer -p 6432 pgbouncer"
    process = site.process()

    def timeout() -> str:
        return str(on("db").check_output(f"{console} | grep ^query_wait_timeout")).split("|")[1]

    try:
        changed(rerun("--tags=pgbouncer_configure", "--limit=db", pgbouncer_queue_timeout=4))
        assert timeout() == "3"
        assert changed(rerun("--tags=pgbouncer", "--limit=db", pgbouncer_queue_timeout=4)) == {"db": 1}
        wait_until(lambda: timeout() == "4", 5)
        assert changed(rerun("--tags=pgbouncer", "--limit=db", pgbouncer_queue_timeout=4)) == {"db": 0}
    finally:
        changed(rerun("--tags=pgbouncer", "--limit=db"))
    assert site.process() == process


def test_more_connections_than_postgresql_has_are_refused_before_anything_changes() -> None:
    run = rerun("--tags=preflight", "--limit=db", pgbouncer_other_connections=145)
    assert run.returncode != 0
    assert "could come to 151, and it has 150 (patroni_max_connections)" in " ".join(run.stdout.split())
