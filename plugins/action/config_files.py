# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: render every template on the controller and hand all of them over in one call."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

SOURCES = ("src", "copy", "content")


class ActionModule(ActionBase):
    """Renders, then runs the module once."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render the files and have the module write them."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        contents: dict[str, str] = {}
        files = []
        for item in arguments.get("files") or []:
            if not isinstance(item, dict):
                raise AnsibleActionFail(f"files: {item!r} is not a dictionary with a dest")
            if item.get("state", "file") == "file":
                contents[str(item.get("dest"))] = base64.b64encode(self._content(item, variables)).decode()
            # What a template is made of stays here: it may hold secrets, and the host has no use for it.
            files.append({name: value for name, value in item.items() if name not in {*SOURCES, "vars"}})
        arguments.update(files=files, payload=json.dumps(contents))
        result: dict[str, Any] = self._execute_module(module_name="sovereign.dify.config_files", module_args=arguments, task_vars=variables)
        result.pop("invocation", None)
        return result

    def _content(self, item: dict[str, Any], variables: dict[str, Any]) -> bytes:
        """Give what one file shall hold."""
        given = [name for name in SOURCES if item.get(name) is not None]
        if len(given) != 1:
            raise AnsibleActionFail(f"{item.get('dest')}: exactly one of {', '.join(SOURCES)} is needed, not {', '.join(given) or 'none'}")
        if given == ["content"]:
            return str(item["content"]).encode()
        if given == ["copy"]:
            try:
                return Path(self._find_needle("files", item["copy"])).read_bytes()
            except AnsibleError as error:
                raise AnsibleActionFail(f"{item.get('dest')}: {error}") from error
        # The look-up searches, and knows the header of managed files, as the module template does.
        template = self._shared_loader_obj.lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)
        return str(template.run([item["src"]], variables={**variables, **(item.get("vars") or {})})[0]).encode()
