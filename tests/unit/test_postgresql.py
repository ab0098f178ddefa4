"""Roles and databases, against a server that answers from tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils import postgresql
from ansible_collections.sovereign.dify.plugins.module_utils.postgresql import Database, Role, identifier, plan, scram, scram_matches

PASSWORD = "correct-horse-battery-staple"
VERIFIER = scram(PASSWORD, b"0123456789abcdef")


@dataclass
class Server:
    """What the catalogue's tables say."""

    roles: list[tuple[Any, ...]] = field(default_factory=list)
    memberships: list[tuple[Any, ...]] = field(default_factory=list)
    databases: list[tuple[Any, ...]] = field(default_factory=list)
    connects: list[tuple[Any, ...]] = field(default_factory=list)
    extensions: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    lookups: list[tuple[Any, ...]] = field(default_factory=list)
    poolers: list[tuple[Any, ...]] = field(default_factory=list)

    def query(self, database: str, sql: str) -> list[tuple[Any, ...]]:
        """Answer the questions that are asked."""
        if sql == postgresql.EXTENSIONS:
            return self.extensions[database]
        assert database == "postgres"
        return {
            postgresql.ROLES: self.roles,
            postgresql.MEMBERSHIPS: self.memberships,
            postgresql.DATABASES: self.databases,
            postgresql.CONNECTS: self.connects,
            postgresql.LOOKUPS: self.lookups,
            postgresql.POOLERS: self.poolers,
        }[sql]


ROLES = [Role("app", PASSWORD, 100, ("readers",)), Role("readers", PASSWORD)]
DATABASES = [Database("app", "app", ("vector",), ("readers",))]


def test_everything_is_made_on_an_empty_server_in_an_order_that_works() -> None:
    shown = [statement.shown for statement in plan(Server().query, ROLES, DATABASES)]
    ordinary = "LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    assert shown == [
        'CREATE ROLE "app"',
        f'ALTER ROLE "app" {ordinary}',
        'ALTER ROLE "app" CONNECTION LIMIT 100',
        'ALTER ROLE "app" PASSWORD (not shown)',
        'CREATE ROLE "readers"',
        f'ALTER ROLE "readers" {ordinary}',
        'ALTER ROLE "readers" PASSWORD (not shown)',
        'GRANT "readers" TO "app"',
        'CREATE DATABASE "app" OWNER "app"',
        'REVOKE ALL ON DATABASE "app" FROM PUBLIC',
        'GRANT CONNECT ON DATABASE "app" TO "readers"',
        'CREATE EXTENSION IF NOT EXISTS "vector" CASCADE -- in app',
    ]


def converged() -> Server:
    return Server(
        roles=[("app", VERIFIER, 100, True), ("readers", VERIFIER, -1, True), ("another", "", -1, False)],
        memberships=[("app", "readers")],
        databases=[("app", "app", False), ("postgres", "postgres", True)],
        connects=[("app", "app"), ("app", "readers")],
        extensions={"app": [("plpgsql",), ("vector",)]},
    )


def test_nothing_is_said_to_a_server_that_is_as_declared() -> None:
    assert plan(converged().query, ROLES, DATABASES) == []


def test_what_differs_is_put_right_and_the_rest_left_alone() -> None:
    server = converged()
    server.roles[0] = ("app", VERIFIER, -1, False)
    server.databases[0] = ("app", "another", True)
    server.extensions["app"] = [("plpgsql",)]
    shown = [statement.shown for statement in plan(server.query, ROLES, DATABASES)]
    assert shown == [
        'ALTER ROLE "app" LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS',
        'ALTER ROLE "app" CONNECTION LIMIT 100',
        'ALTER DATABASE "app" OWNER TO "app"',
        'REVOKE ALL ON DATABASE "app" FROM PUBLIC',
        'CREATE EXTENSION IF NOT EXISTS "vector" CASCADE -- in app',
    ]


def test_another_password_is_set_and_neither_sent_nor_shown() -> None:
    (statement,) = plan(converged().query, [Role("app", "another-password-altogether", 100)], [])
    assert statement.shown == 'ALTER ROLE "app" PASSWORD (not shown)'
    assert "another-password-altogether" not in statement.sql
    assert scram_matches(statement.sql.split("'")[1], "another-password-altogether")


def test_a_role_without_a_password_gets_none_and_loses_one_that_it_has() -> None:
    exporter = Role("another", None, member_of=("pg_monitor",))
    server = converged()
    ordinary = 'ALTER ROLE "another" LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS'
    assert [statement.shown for statement in plan(server.query, [exporter], [])] == [ordinary, 'GRANT "pg_monitor" TO "another"']
    server.roles[2] = ("another", VERIFIER, -1, True)
    server.memberships.append(("another", "pg_monitor"))
    assert [statement.shown for statement in plan(server.query, [exporter], [])] == ['ALTER ROLE "another" PASSWORD NULL']


def test_the_password_of_a_role_of_others_is_set_if_there_is_such_a_role() -> None:
    server = Server(roles=[("replicator", VERIFIER, -1, False), ("rewinder", VERIFIER, -1, False)])
    statements = plan(server.query, [], [], passwords={"replicator": PASSWORD, "rewinder": "another-password-of-some-length", "nobody": PASSWORD})
    assert [statement.shown for statement in statements] == ['ALTER ROLE "rewinder" PASSWORD (not shown)']
    assert "another" not in statements[0].sql


def test_the_verifier_is_that_of_the_standard() -> None:
    # The example of RFC 7677: user "user", password "pencil".
    verifier = scram("pencil", bytes.fromhex("5b6d99689d12358eeca04b141236fa81"))
    assert (
        verifier
        == "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_what_is_no_verifier_matches_nothing() -> None:
    for verifier in ("", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$x:y$z", VERIFIER[:-4] + "AAA="):
        assert not scram_matches(verifier, PASSWORD)


def test_names_are_quoted() -> None:
    assert identifier('a"; DROP DATABASE b') == '"a""; DROP DATABASE b"'


BODY = postgresql.LOOKUP_BODY.format("'pgbouncer', 'rewinder'")


def test_a_pooler_may_look_up_verifiers_and_nobody_else() -> None:
    statements = plan(Server().query, [], [], ["pgbouncer"], ["rewinder"])
    assert [statement.shown for statement in statements] == [
        'CREATE ROLE "pgbouncer"',
        'ALTER ROLE "pgbouncer" LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS',
        "CREATE SCHEMA IF NOT EXISTS pooler",
        "CREATE OR REPLACE FUNCTION pooler.lookup(name)",
        "REVOKE ALL ON FUNCTION pooler.lookup(name) FROM PUBLIC",
        'GRANT USAGE ON SCHEMA pooler TO "pgbouncer"',
        'GRANT EXECUTE ON FUNCTION pooler.lookup(name) TO "pgbouncer"',
    ]
    assert "ARRAY[''pgbouncer'', ''rewinder'']" in statements[3].sql


def test_a_pooler_that_may_is_left_alone() -> None:
    server = Server(roles=[("pgbouncer", "", -1, True)], lookups=[(BODY, True, False)], poolers=[("pgbouncer", True), ("app", False)])
    assert plan(server.query, [], [], ["pgbouncer"], ["rewinder"]) == []


def test_a_pooler_loses_its_password_and_others_what_they_were_given() -> None:
    server = Server(roles=[("pgbouncer", VERIFIER, -1, True)], lookups=[("SELECT", True, True)], poolers=[("pgbouncer", True)])
    assert [statement.shown for statement in plan(server.query, [], [], ["pgbouncer"], ["rewinder"])] == [
        'ALTER ROLE "pgbouncer" PASSWORD NULL',
        "CREATE OR REPLACE FUNCTION pooler.lookup(name)",
        "REVOKE ALL ON FUNCTION pooler.lookup(name) FROM PUBLIC",
        'GRANT USAGE ON SCHEMA pooler TO "pgbouncer"',
        'GRANT EXECUTE ON FUNCTION pooler.lookup(name) TO "pgbouncer"',
    ]
