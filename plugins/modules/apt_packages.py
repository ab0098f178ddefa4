#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: packages that are installed, and that no upgrade touches."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_packages
short_description: Have packages installed and held
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Has packages installed by M(ansible.builtin.apt), without what they merely recommend, and keeps them from being upgraded or removed.
  - Where all of them are there, dpkg alone is asked, in a tenth of the time that apt takes, and no repository. So a rerun needs no mirror.
  - M(ansible.builtin.dpkg_selections) holds one package a call.
  - The action plugin of the same name runs on the controller and calls this module and M(ansible.builtin.apt).
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, details: A package that is not installed is taken for one that would have been.}
  diff_mode: {support: full}
  platform: {platforms: debian}
options:
  name:
    description: Names of packages, each by itself or as C(<name>=<version>). No virtual ones.
    type: list
    elements: str
    required: true
  hold:
    description: Packages that are held, those that come along with the others among them. All in O(name) unless given.
    type: list
    elements: str
  update_cache:
    description: Reads the repositories' lists even where no package is missing.
    type: bool
    default: false
  cache_valid_time:
    description: Seconds for which lists are as good as new, unless a source, or one of O(made_of), has changed since they were read.
    type: int
    default: 86400
  made_of:
    description: Files that lists are made of beside the declared sources, such as the index of a repository on the host.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Install and hold the packages
  sovereign.dify.apt_packages:
    name: [haproxy]
  register: proxy_packages
  notify: Restart the proxy
"""

RETURN = r"""
installed: {description: Packages that were not there., returned: always, type: list, elements: str}
held: {description: Packages that were not held., returned: always, type: list, elements: str}
old: {description: Whether the repositories' lists were older than their sources., returned: success, type: bool}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.apt_packages import SHOWN, lists_are_old, parse_packages, versions, wanting


def main() -> None:
    """Compare, and hold what is there."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "required": True},
            "hold": {"type": "list", "elements": "str"},
            "update_cache": {"type": "bool", "default": False},
            "cache_valid_time": {"type": "int", "default": 86400},
            "made_of": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    names = list(versions(module.params["name"]))
    hold = names if module.params["hold"] is None else module.params["hold"]
    present = parse_packages(module.run_command(["dpkg-query", "--show", SHOWN, *dict.fromkeys([*names, *hold])])[1])
    found = wanting(module.params["name"], hold, present)
    missing, loose = found.missing, found.loose
    here = [name for name in loose if name in present]
    if not missing and len(here) < len(loose):
        absent = ", ".join(name for name in loose if name not in present)
        module.fail_json(msg=f"hold: {absent}: not installed, neither by itself nor along with {', '.join(names)}", installed=[], held=[])
    if here and not module.check_mode:
        module.run_command(["dpkg", "--set-selections"], data="".join(f"{name} hold\n" for name in here), check_rc=True)
    module.exit_json(
        changed=bool(missing or loose),
        installed=missing,
        held=loose,
        old=lists_are_old(map(Path, module.params["made_of"])),
        diff={
            "before": "".join(f"{name} {'not held' if name in present else 'absent'}\n" for name in loose),
            "after": "".join(f"{name} held\n" for name in loose),
        },
    )


if __name__ == "__main__":
    main()
