"""The cluster taken back in time."""

from __future__ import annotations

from typing import Any

from backed_up import ADDRESS, STANZA, Cluster, restore, said


def test_nothing_is_touched_without_need(cluster: Cluster) -> None:
    before = {host: cluster.sql("SELECT pg_postmaster_start_time()", host=host) for host in ADDRESS}
    moment = cluster.now()
    for words, complaint in (
        ({"restore_target_time": moment}, f"To do it: -e restore_confirm={STANZA}"),
        ({"restore_target_time": "2026-01-01 00:00:00+00", "restore_confirm": STANZA}, "lies before the end of the first backup"),
    ):
        run = restore(**words)
        assert run.returncode != 0
        assert complaint in said(run)
        assert "Nothing was touched" in said(run)
    assert {host: cluster.sql("SELECT pg_postmaster_start_time()", host=host) for host in ADDRESS} == before


def test_a_second_before_a_table_was_dropped(cluster: Cluster, on: Any) -> None:
    cluster.sql("DROP TABLE IF EXISTS customers", "CREATE TABLE customers AS SELECT generate_series(1, 1000) AS number")
    moment = cluster.now()
    cluster.sql("DROP TABLE customers", "DROP TABLE IF EXISTS later", "CREATE TABLE later AS SELECT 1 AS number")

    # A target that the log does not have ends half-way, and says how things are.
    lost = restore(restore_target_name="nowhere", restore_confirm=STANZA)
    assert lost.returncode != 0
    assert "recovery ended before configured recovery target was reached" in said(lost)
    assert "No data are lost" in said(lost)
    assert cluster.members() == {}
    for host in ADDRESS:
        assert on(host).run("systemctl start patroni").rc != 0

    # From there it goes on.
    run = restore(restore_target_time=moment, restore_confirm=STANZA)
    assert run.returncode == 0, run.stdout + run.stderr
    cluster.wait_until_whole()
    for host in ADDRESS:
        assert cluster.sql("SELECT count(*) FROM customers", host=host) == "1000"
        assert cluster.sql("SELECT to_regclass('later') IS NULL", host=host) == "t"
        # What there was is kept, once.
        assert len(on(host).check_output("ls --directory /var/lib/postgresql/17/main.before-*").split()) == 1
    # A new backup, and a log that goes into the repository again.
    assert cluster.backups()[-1]["type"] == "full"
    cluster.archive()
    assert cluster.sql("SHOW synchronous_commit") == "on"
