# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: packages that a host lacks, or does not hold."""

from __future__ import annotations

DOCUMENTATION = r"""
name: packages_lacking
short_description: Packages that a host lacks, or does not hold
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Compares packages with what M(sovereign.dify.host_info) has found earlier in the same run, so that M(sovereign.dify.apt_packages) need not be
    called where it would do nothing.
  - Where nobody has looked, all of them may be lacking.
positional: host
options:
  _input:
    description: Names of packages, each by itself or as C(<name>=<version>).
    type: list
    elements: str
    required: true
  host:
    description: What M(sovereign.dify.host_info) returned; an empty dictionary where nobody has looked.
    type: dict
    required: true
  hold:
    description: Names of those that are to be held. All of them unless given.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Install and hold the packages
  sovereign.dify.apt_packages:
    name: [haproxy]
  when: "['haproxy'] | sovereign.dify.packages_lacking(sovereign_host | default({})) | length > 0"
"""

RETURN = r"""
_value: {description: Names of what is not there or not held; everything where nobody has looked., type: list, elements: str}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.apt_packages import versions, wanting


def packages_lacking(names: Sequence[str], host: Mapping[str, Any], hold: Sequence[str] | None = None) -> list[str]:
    """Name the packages for which there is something to do.

    Args:
        names: Packages, each by itself or as ``<name>=<version>``.
        host: What ``host_info`` returned; empty where nobody has looked.
        hold: Names of those that are to be held; all of them where it is ``None``.

    Returns:
        Names; all of them where nobody has looked.
    """
    if "packages" not in host:
        return list(versions(names))
    held = set(host["held"])
    found = wanting(names, hold, {name: (version, "hold" if name in held else "install") for name, version in host["packages"].items()})
    return list(dict.fromkeys([*found.missing, *found.loose]))


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Give it by name."""
        return {"packages_lacking": packages_lacking}
