"""What operators rely on: changes that are shown before they are made, a leader that is moved, reruns that touch nothing.

A leader that is lost is the lab's: there its clients are there, too.
"""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

from patroni_cluster import ADDRESS, Cluster, changes, password_of

from lab.testing import changed, rerun, without_state


def test_a_shared_setting_is_shown_then_applied_and_nobody_is_restarted(cluster: Cluster) -> None:
    before = cluster.started()
    shown = rerun("--tags=patroni", "--check", "--diff", patroni_parameters={"log_min_duration_statement": "5s"})
    assert shown.returncode == 0, shown.stdout
    assert '+      "log_min_duration_statement": "5s",' in shown.stdout
    assert cluster.inside("db1", "SHOW log_min_duration_statement") == "-1"

    run = rerun("--tags=patroni_service", patroni_parameters={"log_min_duration_statement": "5s"}, patroni_max_connections=460)
    assert run.returncode == 0, run.stdout
    assert "PostgreSQL runs with older settings on db1, db2, db3" in run.stdout
    assert "playbooks/ops/rolling_restart.yml" in run.stdout
    assert {cluster.inside(host, "SHOW log_min_duration_statement") for host in ADDRESS} == {"5s"}
    assert cluster.inside("db1", "SHOW max_connections") == "450"

    # No longer declared: left as it is; declared as nothing: gone. And what waited for a restart no longer does.
    left = rerun("--tags=patroni_service")
    assert left.returncode == 0, left.stdout
    assert "older settings" not in left.stdout
    assert cluster.inside("db1", "SHOW log_min_duration_statement") == "5s"
    gone = rerun("--tags=patroni_service", patroni_parameters={"log_min_duration_statement": None})
    assert gone.returncode == 0, gone.stdout
    assert cluster.inside("db1", "SHOW log_min_duration_statement") == "-1"
    assert cluster.started() == before


def test_a_run_that_was_cut_before_the_reload_is_finished_by_the_next_and_nobody_is_restarted(cluster: Cluster) -> None:
    """More memory, of which only the cache that the planner counts on becomes more."""
    before = cluster.started()
    try:
        changed(rerun("--tags=patroni_configure", "--limit=db1", patroni_memory_mb=600))
        assert cluster.inside("db1", "SHOW effective_cache_size") == "358MB"
        assert changed(rerun("--tags=patroni", "--limit=db1", patroni_memory_mb=600)) == {"db1": 1}
        cluster.wait_for("db1", "SHOW effective_cache_size", "420MB")
        assert changed(rerun("--tags=patroni", "--limit=db1", patroni_memory_mb=600)) == {"db1": 0}
    finally:
        changed(rerun("--tags=patroni", "--limit=db1"))
    cluster.wait_for("db1", "SHOW effective_cache_size", "358MB")
    assert cluster.started() == before


def test_passwords_are_nowhere_in_clear_but_in_patronis_own_file(cluster: Cluster, on: Any) -> None:
    host = on(cluster.leader())
    host.check_output("journalctl --sync")
    for role in ("app", "replicator", "rewinder"):
        search = (
            "grep --recursive --files-with-matches --fixed-strings --devices=skip -e %s /etc /var/log /run/systemd /var/lib/postgresql/17/main/base"
        )
        assert set(host.run(search, password_of(role)).stdout.split()) <= {"/etc/patroni/config.yml"}
        assert host.run("journalctl --output=cat | grep --quiet --fixed-strings -e %s", password_of(role)).rc == 1
    assert host.run("setpriv --reuid=nobody --regid=nogroup --groups=ssl-cert cat /etc/patroni/config.yml").rc != 0


def test_a_renewed_certificate_is_shown_without_a_restart(cluster: Cluster, on: Any) -> None:
    address, before = ADDRESS["db1"], cluster.started()

    def serials() -> list[str]:
        """Give the numbers of the certificates that PostgreSQL and Patroni show. Patroni opens its port anew for another one: nothing in between."""
        asks = [f"-alpn postgresql -connect {address}:5432", f"-connect {address}:8008"]
        return [on("client").run(f"openssl s_client {ask} </dev/null 2>/dev/null | openssl x509 -noout -serial").stdout.strip() for ask in asks]

    old = serials()
    assert all(old)
    run = rerun("--tags=pki_rotate", "--limit=db1")
    assert run.returncode == 0, run.stdout
    new, begun = serials(), monotonic()
    while {old[0], ""} & set(new) and monotonic() - begun < 30:
        sleep(0.5)
        new = serials()
    assert old[0] == old[1] != new[0] == new[1]
    assert cluster.started() == before
    cluster.wait_until_whole()


def test_a_leader_that_was_moved_stays_where_it_is(cluster: Cluster, on: Any) -> None:
    old = cluster.leader()
    candidate = next(name for name, member in cluster.members().items() if member["role"] == "sync_standby")
    cluster.ask("CREATE TABLE IF NOT EXISTS ledger (number int PRIMARY KEY); TRUNCATE ledger")

    def switch() -> None:
        on(old).check_output(f"bash --login -c 'timeout 60 patronictl switchover --leader {old} --candidate {candidate} --force'")
        cluster.wait_until_whole()
        written, begun = cluster.ask("SELECT count(*) FROM ledger"), monotonic()
        while cluster.ask("SELECT count(*) FROM ledger") == written:
            assert monotonic() - begun < 30, "nothing is written to the new leader"

    ledger = cluster.write_until(switch)
    print(f"\nswitchover: {ledger.gap:.1f} s without a write, {len(ledger.acknowledged)} acknowledged")
    kept = {int(number) for number in cluster.ask("SELECT number FROM ledger").split()}
    assert {number for number, _ in ledger.acknowledged} <= kept
    cluster.wait_until_whole()
    run = rerun("--tags=patroni")
    assert run.returncode == 0, run.stdout
    assert changes(run) == {0}, run.stdout
    assert cluster.leader() == candidate


def test_the_leader_goes_on_while_etcd_is_away(cluster: Cluster, on: Any) -> None:
    leader = cluster.leader()
    for host in ADDRESS:
        on(host).check_output("systemctl stop etcd")
    try:
        # Longer than a lease lasts.
        sleep(25)
        assert cluster.psql("client", leader, "CREATE TABLE IF NOT EXISTS meanwhile (said text)").rc == 0
    finally:
        for host in ADDRESS:
            on(host).check_output("systemctl start --no-block etcd")
    cluster.wait_until_whole()
    assert cluster.leader() == leader


def test_the_right_state_heals_what_another_has_touched(cluster: Cluster) -> None:
    known = password_of("app")
    cluster.ask("CREATE TABLE IF NOT EXISTS witness (word text); TRUNCATE witness; INSERT INTO witness VALUES ('kept')")
    with without_state("secrets"):
        touched = rerun("--tags=patroni")
        assert touched.returncode == 0, touched.stdout
        # The members have taken the other passwords up, those for replication, too.
        assert password_of("app") != known
        assert cluster.ask("SELECT word FROM witness") == "kept"
        cluster.wait_until_whole()
        assert "password authentication failed" in cluster.psql("client", cluster.leader(), "SELECT 1", password=known).stderr
    healed = rerun("--tags=patroni")
    assert healed.returncode == 0, healed.stdout
    assert password_of("app") == known
    assert cluster.ask("SELECT word FROM witness") == "kept"
    cluster.wait_until_whole()
    # A member that begins again reads what was healed, and follows.
    follower = next(name for name, member in cluster.members().items() if member["role"] == "replica")
    leader, moment = cluster.leader(), cluster.inside(cluster.leader(), "SELECT now()")
    cluster.on(follower).check_output("systemctl restart patroni")
    since = f"application_name = '{follower}' AND state = 'streaming' AND backend_start > '{moment}'"
    cluster.wait_for(leader, f"SELECT count(*) FROM pg_stat_replication WHERE {since}", "1", 60)  # noqa: S608
    cluster.wait_until_whole()
    again = rerun("--tags=patroni")
    assert again.returncode == 0, again.stdout
    assert changes(again) == {0}, again.stdout
