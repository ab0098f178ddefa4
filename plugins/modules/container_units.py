#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: run exactly the declared units of containers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_units
short_description: Run exactly the declared units that quadlets make
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Stops the units that are not declared and removes their files, starts the declared ones all at once, and waits until systemd calls them active.
    Fails as soon as one crashes, with the end of its journal.
  - A unit that runs with other files than the present ones is stale. It is reported, or restarted, one after another but for O(together).
  - Units that somebody else starts and stops are never started; they are restarted when they run and are stale.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, details: Says what would be done.}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  prefix:
    description: What the names of all units begin with.
    type: str
    required: true
  units:
    description: Names of the units that must run, without an ending.
    type: list
    elements: str
    required: true
  supervised:
    description: Those of them that somebody else starts and stops.
    type: list
    elements: str
    default: []
  files:
    description: Files a unit is configured by; C(%i) stands for its name. Those with C(%i) are removed together with the unit.
    type: list
    elements: str
    required: true
  started_with:
    description: Directory, with C(%i), in which a running unit keeps copies of O(files) as it was started with them.
    type: str
    required: true
  restart:
    description: Whether to restart stale units.
    type: bool
    default: false
  together:
    description: Groups of them that may be restarted at the same time, group by group, after the others, which are in turn.
    type: list
    elements: list
    default: []
  timeout:
    description: Longest wait for the start, and for each restart, in seconds.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Run the containers
  sovereign.dify.container_units:
    prefix: dify_
    units: [dify_api_1, dify_web]
    files: [/etc/containers/systemd/%i.container, /etc/dify/%i.env]
    started_with: /run/dify/%i
"""

RETURN = r"""
removed: {description: Units stopped for good., returned: always, type: list, elements: str}
started: {description: Units started., returned: always, type: list, elements: str}
restarted: {description: Units restarted., returned: always, type: list, elements: str}
stale: {description: Units that still run with older files., returned: always, type: list, elements: str}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.container_units import Quadlets
from ansible_collections.sovereign.dify.plugins.module_utils.unit_instances import InstanceError


def main() -> None:
    """Read the parameters, compare, apply, report."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "units": {"type": "list", "elements": "str", "required": True},
            "supervised": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "str", "required": True},
            "started_with": {"type": "str", "required": True},
            "restart": {"type": "bool", "default": False},
            "together": {"type": "list", "elements": "list", "default": []},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    given = module.params

    def run(command: list[str]) -> str:
        return str(module.run_command(command, check_rc=True)[1])

    quadlets = Quadlets(given["prefix"], tuple(given["files"]), given["started_with"], run, supervised=tuple(given["supervised"]))
    plan = quadlets.plan(given["units"])
    restart = plan.stale if given["restart"] else ()
    result: dict[str, Any] = {
        "changed": bool(plan.remove or plan.start or plan.begin_again or restart),
        "removed": list(plan.remove),
        "started": list(plan.start),
        "restarted": [*plan.begin_again, *restart],
        "stale": [] if restart else list(plan.stale),
    }
    if not module.check_mode:
        try:
            quadlets.apply(plan, given["units"], given["timeout"], given["restart"], given["together"])
        except InstanceError as error:
            module.fail_json(msg=str(error), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
