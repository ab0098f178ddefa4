#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: Dify's migration of its database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_migration
short_description: Migrate Dify's database once for each image
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Runs the migration of an image in a container that ends, unless that image has migrated the database last, which the database remembers
    (C(sovereign.migration)).
  - Believes what the migration prints, not its exit code, which is 0 for one that was skipped, too. While somebody else migrates, it waits.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
requirements: [podman, psycopg2]
options:
  image:
    description: Image of the api, by digest or checksum.
    type: str
    required: true
  user:
    description: Numbers of user and group that it runs by, with a colon between; without it, by those of the image.
    type: str
  environment_file:
    description: File on the host with the migration's environment.
    type: path
    required: true
  conninfo_file:
    description: File on the host with libpq's connection string of Dify's database.
    type: path
    required: true
  volumes:
    description: Directories of the host that the container sees, as podman writes them.
    type: list
    elements: str
    default: []
  migrate:
    description: Whether to migrate where the image has not. If not, that is refused; in check mode it is a change, as elsewhere.
    type: bool
    default: true
  timeout:
    description: Longest that a migration may take, in seconds.
    type: int
    default: 1800
"""

EXAMPLES = r"""
- name: Migrate the database
  sovereign.dify.dify_migration:
    image: docker.io/langgenius/dify-api@sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
    environment_file: /etc/dify/migration.env
    conninfo_file: /etc/dify/conninfo
"""

RETURN = r"""
former: {description: Image that had migrated the database before; empty for none., returned: success, type: str}
"""

import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sovereign.dify.plugins.module_utils.container_once import once
from ansible_collections.sovereign.dify.plugins.module_utils.dify_migration import (
    CREATE,
    READ,
    WRITE,
    Migration,
    MigrationError,
    unmigrated,
)

try:
    import psycopg2

    PSYCOPG2_ERROR = None
except ImportError:
    PSYCOPG2_ERROR = traceback.format_exc()


class Table:
    """The record in the database."""

    def __init__(self, conninfo: str) -> None:
        """Connect at each question: minutes may lie between two."""
        self.conninfo = conninfo

    def read(self) -> str:
        """Give the image that has migrated last."""
        try:
            rows = self._ask((READ,), ())
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
            return ""
        return str(rows[0][0]) if rows else ""

    def write(self, image: str) -> None:
        """Note an image."""
        self._ask(CREATE, ())
        self._ask((WRITE,), (image,))

    def _ask(self, statements: tuple[str, ...], values: tuple[str, ...]) -> list[Any]:
        connection = psycopg2.connect(self.conninfo, connect_timeout=10)
        try:
            with connection, connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


def main() -> None:
    """Look, migrate, report."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "user": {"type": "str"},
            "environment_file": {"type": "path", "required": True},
            "conninfo_file": {"type": "path", "required": True},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "migrate": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    if PSYCOPG2_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    given = module.params

    def run() -> str:
        command = once(
            "dify_migration",
            given["image"],
            user=given["user"] or "",
            environment_file=given["environment_file"],
            volumes=given["volumes"],
            timeout=given["timeout"],
        )
        dummy, printed, complaint = module.run_command(command)
        return str(printed) + str(complaint)

    record = Table(Path(given["conninfo_file"]).read_text(encoding="utf-8").strip())
    migration = Migration(given["image"], record, run)
    try:
        former = record.read()
        due = former != given["image"]
        if due and not module.check_mode:
            if not given["migrate"]:
                raise MigrationError(unmigrated(former, given["image"]))
            migration.apply()
    except (MigrationError, psycopg2.Error) as error:
        module.fail_json(msg=str(error).strip())
    module.exit_json(changed=due, former=former, diff={"before": f"{former}\n" if former else "", "after": f"{given['image']}\n"})


if __name__ == "__main__":
    main()
