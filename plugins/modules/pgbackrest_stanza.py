#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: a cluster's place in a repository of pgBackRest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_stanza
short_description: A cluster's place in a repository of pgBackRest
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Makes the stanza where the repository has none, and tells what is in it.
  - A stanza that holds the backups of another cluster is refused, since that one's backups would expire as new ones are made.
  - It can be made on the member that leads; the others only look.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  stanza:
    description: Name of the stanza, as in pgBackRest's configuration on the host.
    type: str
    required: true
  create:
    description: Whether to make it, and to compare the cluster with it. False on members that do not lead.
    type: bool
    default: true
  user:
    description: User of the operating system that PostgreSQL runs as.
    type: str
    default: postgres
  upgrade:
    description: Whether this cluster may take the place of the one that the repository knows.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Give the cluster its place in the repository
  sovereign.dify.pgbackrest_stanza:
    stanza: lab-hq
"""

RETURN = r"""
backups: {description: 'Labels of the backups, oldest first.', returned: success, type: list, elements: str}
running: {description: Whether a backup is being made on this host., returned: success, type: bool}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.pgbackrest import PgbackrestError, Repository, read, reason, when_unlocked

MISMATCH = 28
"""pgBackRest's exit code where the repository knows another cluster under that name."""


def main() -> None:
    """Look, make, look whether it is ours."""
    module = AnsibleModule(
        argument_spec={
            "stanza": {"type": "str", "required": True},
            "create": {"type": "bool", "default": True},
            "user": {"type": "str", "default": "postgres"},
            "upgrade": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    stanza, upgrade = module.params["stanza"], module.params["upgrade"]

    def pgbackrest(*words: str) -> tuple[int, str, str]:
        code, out, err = module.run_command(["runuser", f"--user={module.params['user']}", "--", "pgbackrest", f"--stanza={stanza}", *words])
        return code, out, err

    def look() -> Repository:
        code, out, err = pgbackrest("--output=json", "info")
        if code:
            raise PgbackrestError(reason(err or out))
        return read(out, stanza)

    try:
        before = look()
        after, changed = before, module.params["create"] and not before.exists
        if module.params["create"] and not module.check_mode:
            code, out, err = when_unlocked(lambda: pgbackrest("stanza-create"))
            if code == MISMATCH and upgrade:
                changed = True
                code, out, err = when_unlocked(lambda: pgbackrest("stanza-upgrade"))
            if code == MISMATCH:
                module.fail_json(
                    msg=f"The repository holds the backups of another cluster under the name {stanza} (system {', '.join(before.systems)}). To bring "
                    "that cluster back, run playbooks/ops/restore.yml. To begin anew, and let its backups expire, run once with "
                    "-e pgbackrest_stanza_upgrade=true. Nothing was changed."
                )
            if code:
                raise PgbackrestError(reason(err or out))
            after = look() if changed else before
    except PgbackrestError as error:
        module.fail_json(msg=f"pgBackRest cannot use its repository: {error}")
    module.exit_json(changed=changed, backups=[backup.label for backup in after.backups], running=after.running)


if __name__ == "__main__":
    main()
