# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles and databases of a PostgreSQL server: what there is, and the statements that make it what it shall be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Query = Callable[[str, str], list[tuple[Any, ...]]]
"""Runs a statement in a database (first argument) and returns its rows."""

HOME = "postgres"
"""The database in which what belongs to the whole server is asked and said."""

ITERATIONS = 4096


@dataclass(frozen=True)
class Role:
    """A role that may log in, and is never more than that.

    Attributes:
        name: Its name.
        password: Its password, in ASCII; without one, it comes through the socket alone, as the operating system's user of its name.
        connection_limit: How many connections it may have; -1 for any number.
        member_of: Roles whose rights it has.
    """

    name: str
    password: str | None
    connection_limit: int = -1
    member_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Database:
    """A database that nobody but its owner, and who is named, may connect to.

    Attributes:
        name: Its name.
        owner: Role that owns it.
        extensions: Extensions that it has.
        connect: Roles that may connect to it besides.
    """

    name: str
    owner: str
    extensions: tuple[str, ...] = ()
    connect: tuple[str, ...] = ()


@dataclass(frozen=True)
class Statement:
    """Something to be said in one database.

    Attributes:
        database: Where.
        sql: What.
        shown: What may be shown of it.
    """

    database: str
    sql: str
    shown: str


def plan(
    query: Query,
    roles: Sequence[Role],
    databases: Sequence[Database],
    poolers: Sequence[str] = (),
    hidden: Sequence[str] = (),
    passwords: Mapping[str, str] | None = None,
) -> list[Statement]:
    """Find what has to be said so that roles and databases are as declared. What is not declared is left alone.

    Args:
        query: The server, asked as a superuser.
        roles: Roles that shall be.
        databases: Databases that shall be.
        poolers: Roles of connection poolers, without a password, that may look up the verifiers of others.
        hidden: Roles whose verifiers are not told.
        passwords: Passwords, in ASCII, of roles that somebody else makes. Those that do not exist yet are left to their maker.
    """
    statements = _plan_roles(query, roles, passwords or {})
    if poolers:
        statements += _plan_poolers(query, poolers, hidden)
    existing = {row[0]: row[1:] for row in query(HOME, DATABASES)}
    connects = {(row[0], row[1]) for row in query(HOME, CONNECTS)}
    for database in databases:
        name, owner = identifier(database.name), identifier(database.owner)
        found_owner, public = existing.get(database.name, (None, True))
        if found_owner is None:
            statements.append(_plainly(HOME, f"CREATE DATABASE {name} OWNER {owner}"))
        elif found_owner != database.owner:
            statements.append(_plainly(HOME, f"ALTER DATABASE {name} OWNER TO {owner}"))
        if public:
            statements.append(_plainly(HOME, f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"))
        statements += [
            _plainly(HOME, f"GRANT CONNECT ON DATABASE {name} TO {identifier(role)}")
            for role in database.connect
            if (database.name, role) not in connects
        ]
        present = {row[0] for row in query(database.name, EXTENSIONS)} if found_owner is not None and database.extensions else set()
        statements += [
            _plainly(database.name, f"CREATE EXTENSION IF NOT EXISTS {identifier(extension)} CASCADE")
            for extension in database.extensions
            if extension not in present
        ]
    return statements


ROLES = """
    SELECT rolname, coalesce(rolpassword, ''), rolconnlimit,
           rolcanlogin AND rolinherit AND NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
    FROM pg_authid
"""
MEMBERSHIPS = "SELECT pg_get_userbyid(member), pg_get_userbyid(roleid) FROM pg_auth_members"
DATABASES = """
    SELECT datname, pg_get_userbyid(datdba),
           EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)
    FROM pg_database
"""
CONNECTS = """
    SELECT datname, pg_get_userbyid(grantee) FROM pg_database, aclexplode(datacl) WHERE privilege_type = 'CONNECT' AND grantee <> 0
"""
EXTENSIONS = "SELECT extname FROM pg_extension"


# Row security and search paths play no part in it: a SECURITY DEFINER function runs with its owner's rights, and names only what is PostgreSQL's own.
LOOKUP_FUNCTION = """CREATE OR REPLACE FUNCTION pooler.lookup(asked name) RETURNS TABLE (role name, verifier text)
LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS '{}'"""
LOOKUP_BODY = """
    SELECT rolname, rolpassword FROM pg_authid
    WHERE rolname = asked AND rolcanlogin AND NOT rolsuper AND NOT rolreplication AND (rolvaliduntil IS NULL OR rolvaliduntil > now())
      AND rolname <> ALL (ARRAY[{}]::name[])
"""
LOOKUPS = """
    SELECT prosrc, prosecdef AND proisstrict AND provolatile = 's' AND proowner = 10 AND proconfig = '{"search_path=pg_catalog, pg_temp"}',
           EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
    FROM pg_proc WHERE oid = to_regprocedure('pooler.lookup(name)')
"""
POOLERS = """
    SELECT rolname, coalesce(has_schema_privilege(oid, to_regnamespace('pooler')::oid, 'USAGE')
                             AND has_function_privilege(oid, to_regprocedure('pooler.lookup(name)')::oid, 'EXECUTE'), false)
    FROM pg_roles
"""


def _plan_poolers(query: Query, poolers: Sequence[str], hidden: Sequence[str]) -> list[Statement]:
    """Find what lets poolers look up verifiers: a function that tells them, to nobody else, and not those of roles with more rights than others."""
    existing = {row[0]: row[1:] for row in query(HOME, ROLES)}
    statements: list[Statement] = []
    for pooler in poolers:
        name = identifier(pooler)
        verifier, dummy, ordinary = existing.get(pooler, (None, None, False))
        said = [] if verifier is not None else [f"CREATE ROLE {name}"]
        if not ordinary:
            said.append(f"ALTER ROLE {name} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")
        # It comes through the socket, as the operating system's user of its name. A password would let others in by the network.
        if verifier:
            said.append(f"ALTER ROLE {name} PASSWORD NULL")
        statements += [_plainly(HOME, sql) for sql in said]
    body = LOOKUP_BODY.format(", ".join(_literal(name) for name in sorted({*hidden, *poolers})))
    found = query(HOME, LOOKUPS)
    if not found:
        statements.append(_plainly(HOME, "CREATE SCHEMA IF NOT EXISTS pooler"))
    if not found or found[0][:2] != (body, True):
        shown = "CREATE OR REPLACE FUNCTION pooler.lookup(name)"
        statements.append(Statement(HOME, LOOKUP_FUNCTION.format(body.replace("'", "''")), shown))
    if not found or found[0][2]:
        statements.append(_plainly(HOME, "REVOKE ALL ON FUNCTION pooler.lookup(name) FROM PUBLIC"))
    allowed = {row[0] for row in query(HOME, POOLERS) if row[1]} if found and not found[0][2] else set()
    for pooler in poolers:
        if pooler not in allowed:
            statements.append(_plainly(HOME, f"GRANT USAGE ON SCHEMA pooler TO {identifier(pooler)}"))
            statements.append(_plainly(HOME, f"GRANT EXECUTE ON FUNCTION pooler.lookup(name) TO {identifier(pooler)}"))
    return statements


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _plan_roles(query: Query, roles: Sequence[Role], passwords: Mapping[str, str]) -> list[Statement]:
    existing = {row[0]: row[1:] for row in query(HOME, ROLES)}
    statements = [
        _password(name, password) for name, password in passwords.items() if name in existing and not scram_matches(existing[name][0], password)
    ]
    memberships = {(row[0], row[1]) for row in query(HOME, MEMBERSHIPS)}
    for role in roles:
        name = identifier(role.name)
        verifier, limit, ordinary = existing.get(role.name, (None, None, False))
        said = [] if verifier is not None else [f"CREATE ROLE {name}"]
        if not ordinary:
            said.append(f"ALTER ROLE {name} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")
        if limit != role.connection_limit and not (limit is None and role.connection_limit == -1):
            said.append(f"ALTER ROLE {name} CONNECTION LIMIT {int(role.connection_limit)}")
        statements += [_plainly(HOME, sql) for sql in said]
        if role.password is None:
            if verifier:
                statements.append(_plainly(HOME, f"ALTER ROLE {name} PASSWORD NULL"))
        elif verifier is None or not scram_matches(verifier, role.password):
            statements.append(_password(role.name, role.password))
    # Last: a role may have the rights of one that is declared after it.
    return statements + [
        _plainly(HOME, f"GRANT {identifier(other)} TO {identifier(role.name)}")
        for role in roles
        for other in role.member_of
        if (role.name, other) not in memberships
    ]


def _password(name: str, password: str) -> Statement:
    # The verifier, not the password: what is sent may be logged.
    sql = f"ALTER ROLE {identifier(name)} PASSWORD '{scram(password, os.urandom(16))}'"
    return Statement(HOME, sql, f"ALTER ROLE {identifier(name)} PASSWORD (not shown)")


def _plainly(database: str, sql: str) -> Statement:
    return Statement(database, sql, sql if database == HOME else f"{sql} -- in {database}")


def identifier(name: str) -> str:
    """Quote a name as SQL wants it."""
    return '"' + name.replace('"', '""') + '"'


def scram(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Make the verifier that PostgreSQL keeps of a password (RFC 5803, ``SCRAM-SHA-256``)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def scram_matches(verifier: str, password: str) -> bool:
    """Whether a verifier is one of this password."""
    try:
        kind, parameters, dummy = verifier.split("$")
        iterations, salt = parameters.split(":")
        wanted = scram(password, base64.b64decode(salt), int(iterations))
    except ValueError:
        return False
    return kind == "SCRAM-SHA-256" and hmac.compare_digest(wanted, verifier)
