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
        password: Its password, in ASCII.
        connection_limit: How many connections it may have; -1 for any number.
        member_of: Roles whose rights it has.
    """

    name: str
    password: str
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


def plan(query: Query, roles: Sequence[Role], databases: Sequence[Database], passwords: Mapping[str, str] | None = None) -> list[Statement]:
    """Find what has to be said so that roles and databases are as declared. What is not declared is left alone.

    Args:
        query: The server, asked as a superuser.
        roles: Roles that shall be.
        databases: Databases that shall be.
        passwords: Passwords, in ASCII, of roles that somebody else makes. Those that do not exist yet are left to their maker.
    """
    statements = _plan_roles(query, roles, passwords or {})
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
        if verifier is None or not scram_matches(verifier, role.password):
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
