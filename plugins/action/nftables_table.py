# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: apply a table, then confirm it over a new connection.

The module alone cannot know whether its rules let anybody in: its own connection was there before them, and conntrack keeps it. Two tasks with
``meta: reset_connection`` between them would do, but neither a condition nor a handler can hold those together. Here they are one task.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# How long after the timer the host may take to be reachable again, with the seconds that ssh itself waits and tries anew.
PATIENCE = 60
PAUSE = 1


class ActionModule(ActionBase):
    """Runs the module, and once more to confirm."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Apply and confirm."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        rollback = int(arguments.get("rollback", 60))
        cut: AnsibleConnectionFailure | None = None
        try:
            result: dict[str, Any] = self._once(arguments, variables)
        except AnsibleConnectionFailure as error:
            # Either the host was not there, or the new rules have cut the very connection that applied them: then a change waits over there.
            result, cut = {"changed": True, "pending": True}, error
        if result.get("pending") and not result.get("failed"):
            confirmation = self._confirm({**arguments, "state": "confirmed"}, rollback + PATIENCE, variables)
            if cut and not confirmation.get("failed") and not confirmation.get("changed"):
                raise cut
            if confirmation.get("failed"):
                result["failed"] = True
                result["rolled_back"] = bool(confirmation.get("rolled_back"))
                result["msg"] = (
                    f"The new rules let no new connection in within {rollback} seconds. The host has gone back to the rules of before. "
                    "Look at what may open SSH, and from where."
                    if result["rolled_back"]
                    else str(confirmation.get("msg"))
                )
            result["pending"] = False
        return result

    def _once(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Run the module without the connection's own retries: when the rules cut it, each would apply them once more."""
        retries = self._connection.get_option("reconnection_retries") if self._connection.has_option("reconnection_retries") else None
        if retries is not None:
            self._connection.set_option("reconnection_retries", 0)
        try:
            return dict(self._execute_module(module_name="sovereign.dify.nftables_table", module_args=arguments, task_vars=variables))
        finally:
            if retries is not None:
                self._connection.set_option("reconnection_retries", retries)

    def _confirm(self, arguments: dict[str, Any], seconds: int, variables: dict[str, Any]) -> dict[str, Any]:
        """Confirm over a new connection, as soon as there is one."""
        deadline = time.monotonic() + seconds
        while True:
            # Closes a multiplexed connection that would outlive the rules, too.
            if hasattr(self._connection, "reset"):
                self._connection.reset()
            try:
                return dict(self._execute_module(module_name="sovereign.dify.nftables_table", module_args=arguments, task_vars=variables))
            except AnsibleConnectionFailure as error:
                if time.monotonic() > deadline:
                    return {
                        "failed": True,
                        "rolled_back": False,
                        "msg": f"The new rules let no new connection in, and the host has not come back with those of before either: {error}",
                    }
            time.sleep(PAUSE)
