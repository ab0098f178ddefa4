# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a role lies on the controller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants

COLLECTION = Path(__file__).parents[2] / "roles"


def role_files(groups: list[str], name: str, variables: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Find a file of the roles that groups switch on.

    A group has the name of its role. Roles of this collection come first; others are found beside the playbook and in ``roles_path``, as Ansible
    finds them.

    Args:
        groups: Names of groups; those that are no role's are passed over.
        name: Path of the file in a role's directory.
        variables: Variables of the host.

    Yields:
        Name of the role and path of the file, for each role that has it, by name.
    """
    roots = [COLLECTION, Path(str(variables.get("playbook_dir", "."))) / "roles", *map(Path, constants.config.get_config_value("DEFAULT_ROLES_PATH"))]
    for group in sorted(set(groups)):
        role = next((root / group for root in roots if (root / group).is_dir()), None)
        if role and (role / name).is_file():
            yield group, role / name
