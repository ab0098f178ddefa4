# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: translate a role's firewall rules on the controller, write them, and apply the table if that changed something."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.sovereign.dify.plugins.filter.firewall_fragment import firewall_fragment
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.source import DIRECTORY, NAME, digest

HEADER = "# Written by Ansible, sovereign.dify.firewall_rules"


class ActionModule(ActionBase):
    """Runs the module of the same name, and nftables_table only where rules are not in force."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write, apply, confirm."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        if "firewall" not in variables.get("group_names", []):
            return {"changed": False, "skipped": True, "skip_reason": "The host is not in the group firewall"}
        arguments = dict(self._task.args)
        owner = str(arguments.get("owner"))
        content = f"{HEADER}\n{firewall_fragment(arguments.get('rules') or [], owner, f'inet {NAME}')}"
        # What a playbook has seen at the beginning of this run.
        if (variables.get("sovereign_host") or {}).get("firewall", {}).get(owner) == digest(content):
            return {"changed": False, "skipped": True, "skip_reason": "The rules were in force when this run looked at the host"}
        written: dict[str, Any] = self._execute_module(
            module_name="sovereign.dify.firewall_rules", module_args={**arguments, "payload": content}, task_vars=variables
        )
        written.pop("invocation", None)
        if written.get("failed") or not written["changed"] or self._task.check_mode:
            return written
        applied = self._apply(arguments, variables)
        # What the table was told is in the file's difference.
        return {**written, **{name: value for name, value in applied.items() if name in ("failed", "msg", "warnings", "rolled_back")}}

    def _apply(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        task = self._task.copy()
        task.args = {
            "name": NAME,
            "src": [str(DIRECTORY / "base.nft"), str(DIRECTORY / "rules.d")],
            "dest": str(DIRECTORY / "ruleset.nft"),
            "rollback": arguments.get("rollback", self._templar.template(variables.get("firewall_rollback_timeout", 60))),
        }
        action = self._shared_loader_obj.action_loader.get(
            "sovereign.dify.nftables_table",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        result: dict[str, Any] = action.run(task_vars=variables)
        return result
