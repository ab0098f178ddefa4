# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: look whether packages are there, have apt install those that are not, and hold them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Runs the module of the same name, and ansible.builtin.apt only where something is missing."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look, install, hold."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        looked = self._module("sovereign.dify.apt_packages", arguments, task_vars)
        if looked.get("failed") or not (looked["installed"] or boolean(arguments.get("update_cache", False))):
            return looked
        wanted = {
            "name": arguments["name"],
            "state": "present",
            "install_recommends": False,
            "update_cache": True,
            "cache_valid_time": 0 if looked["old"] else arguments.get("cache_valid_time", 86400),
        }
        apt = self._module("ansible.builtin.apt", wanted, task_vars)
        if apt.get("failed"):
            return apt
        if not self._task.check_mode:
            held = self._module("sovereign.dify.apt_packages", arguments, task_vars)
            if held.get("failed"):
                return held
            if held["installed"]:
                names = ", ".join(held["installed"])
                return {
                    **held,
                    "failed": True,
                    "msg": f"apt has installed what is asked for, but nothing by the name {names}: give packages' own names",
                }
        return {**looked, "diff": [diff for diff in (apt.get("diff"), looked["diff"]) if diff]}

    def _module(self, name: str, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
        result.pop("invocation", None)
        return result
