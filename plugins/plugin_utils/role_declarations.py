# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role declares in a file beside its tasks, templated with the role's own variables as a host has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase


class DeclarationLookup(LookupBase):
    """A look-up that reads declarations."""

    def declaration(self, path: Path, variables: Mapping[str, Any]) -> object:
        """Read a declaration and template it: the role's defaults lose against all others of the host, its own variables win.

        Args:
            path: File in a directory of the role.
            variables: Variables of the host.

        Returns:
            Its content.

        Raises:
            AnsibleLookupError: The look-up is used where nothing is templated.
        """
        merged = {**self._role_variables(path, "defaults"), **variables, **self._role_variables(path, "vars")}
        if self._templar is None:
            raise AnsibleLookupError("a look-up of declarations can only be used in a template")
        return self._templar.copy_with_new_env(available_variables=merged).template(self._read(path))

    def _role_variables(self, path: Path, kind: str) -> dict[str, Any]:
        file = path.parent.parent / kind / "main.yml"
        return (self._read(file) or {}) if file.is_file() else {}

    def _read(self, path: Path) -> Any:  # noqa: ANN401 - YAML
        """Read a file whose author writes playbooks, too, so that templates in it are rendered."""
        return (self._loader or DataLoader()).load_from_file(str(path), trusted_as_template=True)
