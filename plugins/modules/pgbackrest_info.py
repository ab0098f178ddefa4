#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: what a repository of pgBackRest holds of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_info
short_description: What a repository of pgBackRest holds of a cluster
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Lists the backups, and says whether the cluster could be restored to a time.
  - Fails where the repository cannot be reached or read, with the reason.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, details: "Nothing is archived."}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  stanza:
    description: Name of the stanza, as in pgBackRest's configuration on the host.
    type: str
    required: true
  archive:
    description: >-
      Whether to have PostgreSQL close its current segment, and to wait until that is in the repository, so that what is committed by then can be
      restored. On a member that leads; one that follows only looks.
    type: bool
    default: false
  target_time:
    description: >-
      Time to which the cluster shall be restored, as PostgreSQL writes it, such as C(2026-11-22 12:00:00+00). Its newest state, if it is empty.
    type: str
    default: ""
  set:
    description: Backup that the restore begins with. The newest one before the target, if it is empty.
    type: str
    default: ""
  user:
    description: User of the operating system that PostgreSQL runs as.
    type: str
    default: postgres
"""

EXAMPLES = r"""
- name: Look whether the cluster can be restored
  sovereign.dify.pgbackrest_info:
    stanza: lab-hq
    target_time: "2026-11-22 12:00:00+00"
  register: repository
"""

RETURN = r"""
archiving:
  description: >-
    V(works), V(off) where PostgreSQL was started without C(archive_mode), V(follows) on a member that does not lead, V(unknown) if not asked.
  returned: success
  type: str
backups:
  description: 'The backups, oldest first, as rows of a table.'
  returned: success
  type: list
  elements: dict
exists: {description: Whether the repository knows the cluster., returned: success, type: bool}
outside:
  description: Why the cluster cannot be restored to the target, for instance a gap in the archived log; empty if it can.
  returned: success
  type: str
running: {description: Whether a backup is being made on this host., returned: success, type: bool}
size: {description: Bytes that the newest backup takes as a cluster., returned: success, type: int}
systems: {description: 'System identifiers of the clusters that it has seen, the newest last.', returned: success, type: list, elements: str}
table: {description: Keys of the rows in order., returned: success, type: list, elements: str}
"""

import json
from datetime import UTC, datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.pgbackrest import (
    COLUMNS,
    PgbackrestError,
    Repository,
    base,
    directories,
    gap,
    interrupted,
    outside,
    read,
    reason,
    rows,
)

ANSWERS = {0: "works", 27: "follows", 87: "off"}
"""What pgBackRest's exit codes of ``check`` mean."""


def main() -> None:
    """Archive, look, report."""
    module = AnsibleModule(
        argument_spec={
            "stanza": {"type": "str", "required": True},
            "archive": {"type": "bool", "default": False},
            "target_time": {"type": "str", "default": ""},
            "set": {"type": "str", "default": ""},
            "user": {"type": "str", "default": "postgres"},
        },
        supports_check_mode=True,
    )

    def pgbackrest(*words: str) -> tuple[int, str, str]:
        command = ["runuser", f"--user={module.params['user']}", "--", "pgbackrest", f"--stanza={module.params['stanza']}", *words]
        code, out, err = module.run_command(command)
        return code, out, err

    def asked(*words: str) -> str:
        code, out, err = pgbackrest(*words)
        if code:
            raise PgbackrestError(reason(err or out))
        return out

    def refusal(repository: Repository) -> str:
        said = outside(repository.backups, target, datetime.now(UTC)) if target or not repository.backups else ""
        begin = None if said else base(repository.backups, target, module.params["set"])
        if begin and repository.archive_to:
            listing: dict[str, Any] = {}
            for name in directories(json.loads(asked("--output=json", "repo-ls", repository.archive)), begin.wal_from):
                listing |= json.loads(asked("--output=json", "repo-ls", f"{repository.archive}/{name}"))
            found = gap(listing, begin.wal_from, repository.archive_to)
            said = interrupted(found, target) if found else ""
        return said

    target, archiving = module.params["target_time"], "unknown"
    try:
        if module.params["archive"] and not module.check_mode:
            code, out, err = pgbackrest("check")
            if code not in ANSWERS:
                raise PgbackrestError(reason(err or out))
            archiving = ANSWERS[code]
        repository = read(asked("--output=json", "info"), module.params["stanza"])
        refused = refusal(repository)
    except PgbackrestError as error:
        module.fail_json(msg=f"pgBackRest cannot use its repository: {error}")
    module.exit_json(
        changed=False,
        archiving=archiving,
        backups=rows(repository.backups),
        exists=repository.exists,
        outside=refused,
        running=repository.running,
        size=repository.backups[-1].database_bytes if repository.backups else 0,
        systems=list(repository.systems),
        table=list(COLUMNS),
    )


if __name__ == "__main__":
    main()
