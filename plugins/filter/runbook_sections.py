# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the sections of a runbook."""

from __future__ import annotations

DOCUMENTATION = r"""
name: runbook_sections
short_description: The sections of a runbook, by the addresses that alerts have in their annotations
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Splits a page in Markdown at its headings of the second level, so that whoever sees an alert can be shown what to do.
positional: path
options:
  _input: {description: The page., type: str, required: true}
  path: {description: 'What alerts call the page, such as C(docs/runbooks/etcd.md).', type: str, required: true}
"""

EXAMPLES = r"""
- name: Show what is to be done when etcd has no leader
  ansible.builtin.debug:
    msg: "{{ (text | sovereign.dify.runbook_sections('docs/runbooks/etcd.md'))['docs/runbooks/etcd.md#etcdnoleader'].text }}"
"""

RETURN = r"""
_value: {description: 'By C(path#anchor) the C(heading) and the C(text) of each section.', type: dict}
"""

import re
from collections.abc import Callable
from typing import Any


def runbook_sections(text: str, path: str) -> dict[str, dict[str, str]]:
    """Split a page.

    Args:
        text: The page.
        path: What alerts call it.
    """
    found = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, dummy, body = section.partition("\n")
        anchor = re.sub(r"[^\w-]", "", heading.strip().lower().replace(" ", "-"))
        found[f"{path}#{anchor}"] = {"heading": heading.strip(), "text": body.strip()}
    return found


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"runbook_sections": runbook_sections}
