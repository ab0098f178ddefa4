# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup: what a role has to be given where the inventory plugin has set nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
name: needed_alone
short_description: What a role has to be given where the inventory plugin has set nothing
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Says in a sentence which variables the role of this task has to be given where P(sovereign.dify.cluster#inventory) has not set C(cluster), C(site)
    and C(node), all at once, as the section Variables of its README does.
  - For the defaults of these three in the roles of this collection. What an inventory sets comes before a role's default, so that this is
    looked up only where no inventory of this collection is in use.
options: {}
"""

EXAMPLES = r"""
# roles/redis/defaults/main.yml
cluster: "{{ undef(hint=lookup('sovereign.dify.needed_alone')) }}"
"""

RETURN = r"""
_raw: {description: The sentence., type: list, elements: str}
"""

import re
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

SENTENCE = re.compile(r"^Without the inventory plugin, give (.*)\.$", re.MULTILINE)
"""What ``docs/generate.py`` writes below the table of variables."""


class LookupModule(LookupBase):
    """Reads the README of the role that a task belongs to."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:  # noqa: ANN401 - Ansible's signature
        """Give the sentence.

        Raises:
            AnsibleLookupError: the task belongs to no role that reads anything of an inventory.
        """
        readme = Path((variables or {}).get("role_path", ""), "README.md")
        needed = SENTENCE.search(readme.read_text(encoding="utf-8")) if readme.is_file() else None
        if not needed:
            msg = "sovereign.dify.needed_alone: this is no role of sovereign.dify that reads what the inventory plugin sets."
            raise AnsibleLookupError(msg)
        names = needed[1].replace("`", "")
        return [f"Without the inventory plugin sovereign.dify.cluster, the role {readme.parent.name} has to be given {names}. See {readme}."]
