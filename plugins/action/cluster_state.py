# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: compare the controller's state directory with the marks of the hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.sovereign.dify.plugins.module_utils.state_directory import identity, make_identity, mark, problem


class ActionModule(ActionBase):
    """Looks at facts that Ansible has; connects to no host."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare, and give a new state directory its identity."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        dummy, arguments = self.validate_argument_spec(
            argument_spec={
                "state_dir": {"type": "path", "required": True},
                "hosts": {"type": "list", "elements": "str", "default": []},
                "adopt": {"type": "raw", "default": False},
            }
        )
        directory = Path(arguments["state_dir"])
        played = task_vars["ansible_play_hosts_all"]
        marks = {host: self._mark(task_vars["hostvars"], host) for host in sorted({*played, *arguments["hosts"]})}
        if not boolean(arguments["adopt"]) and (reason := problem(directory, marks, [*played, *arguments["hosts"]])):
            return {"failed": True, "msg": reason}
        known = identity(directory)
        wanted = known or ("" if self._task.check_mode else make_identity(directory))
        unmarked = [host for host in played if marks[host] != wanted or not wanted]
        return {"changed": not known, "id": wanted, "unmarked": unmarked}

    @staticmethod
    def _mark(hostvars: Mapping[str, Any], host: str) -> str | None:
        facts = hostvars[host].get("ansible_facts")
        return mark(facts) if isinstance(facts, Mapping) else None
