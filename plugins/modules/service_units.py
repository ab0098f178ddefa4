#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: units that run, with the files that lie there now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_units
short_description: Have units run, with the files that lie there now
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Enables and starts units, and reloads or restarts those that have not loaded the present content of their files. Runs commands whose effect is
    that of other files than the present ones.
  - Nothing depends on what the same run has changed before. What a unit has loaded is known from a record in C(/var/lib/sovereign/loaded), which is
    made after each start and reload by this module, and holds as long as the unit has not been started anew; else by whether a file has changed
    since the unit began to start. A run that was cut after it had written a file is thus finished by the next one.
  - Has systemd read units again that have changed on disk.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, details: "A unit that is not there is taken for one that an earlier task would have brought; see also O(pending)."}
  diff_mode: {support: full}
  platform: {platforms: posix}
options:
  units:
    description: The units, in the order in which they are looked after.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the unit, with its type.
        type: str
        required: true
      state:
        description: What it shall do. One that is V(current) is kept up to date where it runs, and not started where it does not.
        type: str
        choices: [started, current, stopped]
        default: started
      enabled:
        description: Whether it starts with the machine; not touched where it is not given.
        type: bool
      reload:
        description: Files that it takes up at a reload. A name may hold C(*), or be a directory's, which stands for all files in it.
        type: list
        elements: path
        default: []
      restart:
        description: Files that only a restart takes up, written as in O(units[].reload).
        type: list
        elements: path
        default: []
      rule:
        description:
          - What becomes of a unit that has not loaded one of O(units[].restart). V(now) restarts it. V(first) restarts it only where this module has
            never seen it before, as a package has just started it with files of its own. V(report) never does, and gives RV(due).
        type: str
        choices: [now, first, report]
        default: now
      stale:
        description: Whether something else has shown that it does not run its files, for instance its own answer. It is reloaded.
        type: bool
        default: false
      block:
        description: Whether to wait until it has started.
        type: bool
        default: true
  users_of:
    description:
      - Files that several roles' units take up, such as the host's certificate. Every unit of which an earlier call has shown that it does, and that
        runs, is reloaded if it has not loaded their present content.
    type: list
    elements: path
    default: []
  commands:
    description: Commands to run where they have not been run for the present content of their files. They come before the units.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: A name for its record.
        type: str
        required: true
      argv:
        description: The command.
        type: list
        elements: str
        required: true
      files:
        description: The files, written as in O(units[].reload). Where none of them is there, nor was at the last time, nothing is run.
        type: list
        elements: path
        required: true
      boot:
        description: Whether the boot of the host has the same effect.
        type: bool
        default: false
  pending:
    description: Files that an earlier task has changed. In check mode they have not been written; they count as if they had.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Have nginx run, with its present configuration
  sovereign.dify.service_units:
    units:
      - name: nginx.service
        enabled: true
        reload: [/etc/nginx/nginx.conf, /etc/nginx/clients.conf, /etc/sovereign/pki/host.pem]
        # Limits of the process. A restart would end streams, and is the operator's; but the one that the package has just started has none.
        restart: [/etc/systemd/system/nginx.service.d/sovereign.conf]
        rule: first
    pending: "{{ __nginx_files.changed_files | default([]) }}"
"""

RETURN = r"""
steps:
  description: What was done, in its order.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Unit or command., type: str}
    action:
      description: C(start), C(stop), C(restart), C(reload), C(enable), C(disable), C(run), or C(reread) where systemd has read the unit again.
      type: str
    files: {description: The files that it had not loaded., type: list, elements: str}
due:
  description: Units with O(units[].rule=report) that have not loaded some of their files, which only a restart will.
  returned: always
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.service_units import Command, Host, ServiceUnitsError, Step, Unit, booted_at

UNIT_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "current", "stopped"], "default": "started"},
    "enabled": {"type": "bool"},
    "reload": {"type": "list", "elements": "path", "default": []},
    "restart": {"type": "list", "elements": "path", "default": []},
    "rule": {"type": "str", "choices": ["now", "first", "report"], "default": "now"},
    "stale": {"type": "bool", "default": False},
    "block": {"type": "bool", "default": True},
}
COMMAND_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "argv": {"type": "list", "elements": "str", "required": True},
    "files": {"type": "list", "elements": "path", "required": True},
    "boot": {"type": "bool", "default": False},
}


def main() -> None:
    """Compare, act, report."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "default": [], "options": UNIT_OPTIONS},
            "users_of": {"type": "list", "elements": "path", "default": []},
            "commands": {"type": "list", "elements": "dict", "default": [], "options": COMMAND_OPTIONS},
            "pending": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )

    def run(command: list[str]) -> str:
        rc, out, err = module.run_command(command)
        if rc:
            raise ServiceUnitsError(err.strip() or out.strip() or f"exit code {rc} from {' '.join(command)}")
        return str(out)

    parameters = module.params
    boot, booted = booted_at()
    host = Host(run, pending=frozenset(parameters["pending"] if module.check_mode else ()), boot=boot)
    units = [Unit(**{**item, "reload": tuple(item["reload"]), "restart": tuple(item["restart"])}) for item in parameters["units"]]
    units += [unit for unit in host.users(parameters["users_of"]) if unit.name not in {declared.name for declared in units}]
    commands = [Command(item["name"], tuple(item["argv"]), tuple(item["files"]), item["boot"]) for item in parameters["commands"]]
    steps: list[Step] = []
    try:
        for command in commands:
            if files := host.is_due(command, booted):
                steps.append(Step(command.name, "run", tuple(files)))
                if not module.check_mode:
                    host.carry_out(command)
        plan = host.plan(units, module.check_mode)
        steps += plan.steps
        if not module.check_mode:
            host.apply(plan, units)
    except ServiceUnitsError as error:
        module.fail_json(msg=str(error), steps=[report(step) for step in steps])
    module.exit_json(
        changed=bool(steps),
        steps=[report(step) for step in steps],
        due={name: list(files) for name, files in plan.due.items()},
        diff=[difference(step) for step in steps],
    )


def report(step: Step) -> dict[str, Any]:
    """Give a step as the module returns it."""
    return {"name": step.name, "action": step.action, "files": list(step.files)}


def difference(step: Step) -> dict[str, str]:
    """Show a step as Ansible's ``diff`` does."""
    before = f"{step.name}: {step.was or 'as it was'}\n" + "".join(f"  has not loaded {path}\n" for path in step.files)
    return {"before": before, "after": f"{step.name}: {step.action}\n", "before_header": step.name, "after_header": step.name}


if __name__ == "__main__":
    main()
