"""PgBouncer in front of each of two PostgreSQLs; what else it does, the scenario pgbouncer shows."""

from __future__ import annotations

from two_members import MEMBERS, Site

WHERE = "SELECT inet_server_addr(), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def test_writing_goes_to_whoever_leads_and_reading_to_whoever_follows(site: Site) -> None:
    assert site.psql(6432, WHERE).stdout == f"{MEMBERS[site.leader()]}|t\n"
    assert site.psql(6433, WHERE).stdout == f"{MEMBERS[site.follower()]}|t\n"
