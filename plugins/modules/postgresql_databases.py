#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: roles and databases of a PostgreSQL server, all in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_databases
short_description: Roles and databases of a PostgreSQL server, in one call
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Makes the declared roles, databases and extensions, and keeps them as declared. What is not declared is left alone, and nothing is ever dropped.
  - Connects through the socket as the operating system's user of the superuser's name. Passwords leave the host's memory as SCRAM verifiers only.
  - The modules of C(community.postgresql) do one role, one database or one extension a call.
  - Runs on the server that takes writes.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full, details: Passwords are not shown.}
  platform: {platforms: posix}
requirements: [psycopg2]
options:
  socket:
    description: Directory of the server's socket.
    type: path
    default: /var/run/postgresql
  port:
    description: Port that the socket is named by.
    type: int
    default: 5432
  user:
    description: Superuser, and user of the operating system to connect as.
    type: str
    default: postgres
  roles:
    description: Roles that shall be. They may log in, and have none of the server's special rights.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name., type: str, required: true}
      password:
        description: Password, in ASCII. Without one it comes through the socket alone, as the operating system's user of its name.
        type: str
      connection_limit: {description: Most connections; -1 for any number., type: int, default: -1}
      member_of: {description: Roles whose rights it has. Others that it was given stay., type: list, elements: str, default: []}
  passwords:
    description: Passwords, in ASCII, of roles that somebody else makes, by name. Roles that do not exist yet are left to their maker.
    type: dict
    default: {}
  databases:
    description: Databases that shall be. PUBLIC has no rights in them.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name., type: str, required: true}
      owner: {description: Role that owns it., type: str, required: true}
      extensions: {description: Extensions that it has., type: list, elements: str, default: []}
      connect: {description: Roles that may connect besides the owner., type: list, elements: str, default: []}
  poolers:
    description:
      - Roles of connection poolers that shall be. They log in through the socket, as the operating system's user of their name, and have no password.
      - They, and nobody else, may ask C(pooler.lookup(name)) in the database C(postgres) for the SCRAM verifier of a role. It tells none of a
        superuser, of a role that replicates or may not log in, or of O(hidden).
    type: list
    elements: str
    default: []
  hidden:
    description: More roles whose verifiers C(pooler.lookup) does not tell.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Make the roles and databases
  sovereign.dify.postgresql_databases:
    roles:
      - {name: dify, password: "{{ lookup('sovereign.dify.secret', 'patroni/dify') }}", connection_limit: 200}
    databases:
      - {name: dify, owner: dify, extensions: [vector]}
"""

RETURN = r"""
statements: {description: 'What was said to the server, without passwords.', returned: success, type: list, elements: str}
"""

import os
import pwd
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sovereign.dify.plugins.module_utils.postgresql import Database, Role, plan

try:
    import psycopg2

    PSYCOPG2_ERROR = None
except ImportError:
    PSYCOPG2_ERROR = traceback.format_exc()


class Server:
    """Connections to the databases of one server, each made once."""

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401 - libpq's
        """Keep what every connection needs."""
        self._arguments = arguments
        self._connections: dict[str, Any] = {}

    def query(self, database: str, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement in a database, at once and for good."""
        if database not in self._connections:
            self._connections[database] = psycopg2.connect(dbname=database, connect_timeout=10, **self._arguments)
            self._connections[database].autocommit = True
        with self._connections[database].cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []


def main() -> None:
    """Compare, say, report."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/var/run/postgresql"},
            "port": {"type": "int", "default": 5432},
            "user": {"type": "str", "default": "postgres"},
            "roles": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "no_log": True},
                    "connection_limit": {"type": "int", "default": -1},
                    "member_of": {"type": "list", "elements": "str", "default": []},
                },
            },
            "passwords": {"type": "dict", "default": {}, "no_log": True},
            "databases": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "owner": {"type": "str", "required": True},
                    "extensions": {"type": "list", "elements": "str", "default": []},
                    "connect": {"type": "list", "elements": "str", "default": []},
                },
            },
            "poolers": {"type": "list", "elements": "str", "default": []},
            "hidden": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    if PSYCOPG2_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    roles = [Role(item["name"], item["password"], item["connection_limit"], tuple(item["member_of"])) for item in module.params["roles"]]
    databases = [Database(item["name"], item["owner"], tuple(item["extensions"]), tuple(item["connect"])) for item in module.params["databases"]]
    server = Server(host=module.params["socket"], port=module.params["port"], user=module.params["user"])
    shown: list[str] = []
    try:
        with As(module.params["user"]):
            statements = plan(server.query, roles, databases, module.params["poolers"], module.params["hidden"], module.params["passwords"])
            for statement in statements:
                if not module.check_mode:
                    server.query(statement.database, statement.sql)
                shown.append(statement.shown)
    except KeyError:
        module.fail_json(msg=f"there is no user {module.params['user']}", statements=[])
    except psycopg2.Error as error:
        done = f" (after: {'; '.join(shown)})" if shown else ""
        module.fail_json(msg=f"PostgreSQL refuses{done}: {str(error).strip()}", statements=shown)
    module.exit_json(changed=bool(shown), statements=shown, diff={"before": "", "after": "".join(f"{line}\n" for line in shown)})


class As:
    """Be another user for a while: the socket lets in whom the kernel says it is."""

    def __init__(self, user: str) -> None:
        """Look the user up, and fail with ``KeyError`` where there is none."""
        self._uid = pwd.getpwnam(user).pw_uid

    def __enter__(self) -> None:
        """Become the user, if we are root."""
        self._back = os.geteuid()
        if self._back == 0:
            os.seteuid(self._uid)

    def __exit__(self, *dummy: object) -> None:
        """Become again who we were."""
        os.seteuid(self._back)


if __name__ == "__main__":
    main()
