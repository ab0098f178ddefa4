#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: packages that no upgrade touches."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_hold
short_description: Hold packages of dpkg, many in one call
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Keeps packages from being upgraded or removed, until they are released.
  - M(ansible.builtin.dpkg_selections) does one package a call.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, details: A package that is not installed is taken for one that an earlier task would have installed.}
  diff_mode: {support: full}
  platform: {platforms: debian}
options:
  name:
    description: Names of installed packages.
    type: list
    elements: str
    required: true
  state:
    description: Whether they are held, or upgraded with the others.
    type: str
    choices: [hold, release]
    default: hold
"""

EXAMPLES = r"""
- name: Hold the packages
  sovereign.dify.apt_hold:
    name: [haproxy]
"""

RETURN = r"""
packages: {description: Packages whose state was another., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule

WANTED = {"hold": "hold", "release": "install"}


def main() -> None:
    """Compare and set."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": [*WANTED], "default": "hold"},
        },
        supports_check_mode=True,
    )
    names, wanted = module.params["name"], WANTED[module.params["state"]]
    dummy, listed, dummy = module.run_command(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Want} ${db:Status-Status}\\n", *names])
    selections = {line.split()[0]: line.split()[1] for line in listed.splitlines() if line.endswith(" installed")}
    if (missing := sorted(set(names) - set(selections))) and not module.check_mode:
        module.fail_json(msg=f"not installed, and so not to be held or released: {', '.join(missing)}", packages=[])
    changed = [name for name in names if selections.get(name) != wanted]
    if changed and not module.check_mode:
        module.run_command(["dpkg", "--set-selections"], data="".join(f"{name} {wanted}\n" for name in changed), check_rc=True)
    module.exit_json(
        changed=bool(changed),
        packages=changed,
        diff={
            "before": "".join(f"{name} {selections.get(name, 'absent')}\n" for name in changed),
            "after": "".join(f"{name} {wanted}\n" for name in changed),
        },
    )


if __name__ == "__main__":
    main()
