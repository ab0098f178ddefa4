#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: run exactly the declared instances of a systemd template unit."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_instances
short_description: Run exactly the declared instances of a systemd template unit
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Stops and disables the instances that are not declared and removes their files, enables and starts the declared ones all at once, and waits until
    systemd calls them active. Fails as soon as one crashes, with the end of its journal.
  - An instance that runs with other files than the present ones is stale. It is reported, or restarted, one after another.
  - Where an instance shall have what another one still holds, both are stopped before either is started.
  - For units whose start takes minutes and ends only when they really serve (C(ExecStartPost=)).
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, description: Says what would be done.}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  template:
    description: Name of the template unit up to the C(@).
    type: str
    required: true
  instances:
    description: Names of the instances that must run.
    type: list
    elements: str
    required: true
  files:
    description: Files an instance is configured by; C(%i) stands for its name. Those with C(%i) are removed together with the instance.
    type: list
    elements: str
    default: []
  started_with:
    description: Directory, with C(%i), in which a running instance keeps copies of O(files) as it was started with them.
    type: str
    required: true
  claims:
    description:
      - Environment variables in O(files) whose values, separated by commas, only one running instance can have, such as GPUs. A declared instance
        that does not run is not started while another one holds such a value, unless O(restart) has that one restarted with it.
    type: list
    elements: str
    default: []
  force:
    description: Instances that count as stale whatever they run with.
    type: list
    elements: str
    default: []
  undeclared:
    description: What becomes of instances that are not declared.
    type: str
    choices: [removed, kept]
    default: removed
  remove:
    description: Instances that are removed though O(undeclared) are V(kept).
    type: list
    elements: str
    default: []
  restart:
    description: Whether to restart stale instances, and to start those that waited for them.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until those that were started serve. Where some wait for others on other hosts, all must have been started before any is
        waited for. Nothing is restarted without waiting.
    type: bool
    default: true
  timeout:
    description: Longest wait for the start, and for each restart, in seconds.
    type: int
    default: 1800
"""

EXAMPLES = r"""
- name: Run the models
  sovereign.dify.unit_instances:
    template: vllm
    instances: [assistant, faq]
    files: [/etc/systemd/system/vllm@.service, /etc/vllm/%i.yaml]
    started_with: /run/vllm/%i
"""

RETURN = r"""
removed: {description: Instances stopped for good., returned: always, type: list, elements: str}
enabled: {description: Instances that start with the machine from now on., returned: always, type: list, elements: str}
started: {description: Instances started., returned: always, type: list, elements: str}
restarted: {description: Instances restarted., returned: always, type: list, elements: str}
stale: {description: Instances that still run with older files., returned: always, type: list, elements: str}
blocked: {description: Declared instances that do not run since others hold what they need., returned: always, type: list, elements: str}
undeclared: {description: Instances that are not declared and were kept., returned: always, type: list, elements: str}
in_the_way: {description: Those of them that hold what a blocked one needs., returned: always, type: list, elements: str}
groups:
  description: Instances that are stale or blocked. Those of one group must be restarted together.
  returned: always
  type: list
  elements: list
"""

from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.unit_instances import InstanceError, Template


def main() -> None:
    """Read the parameters, compare, apply, report."""
    module = AnsibleModule(
        argument_spec={
            "template": {"type": "str", "required": True},
            "instances": {"type": "list", "elements": "str", "required": True},
            "files": {"type": "list", "elements": "str", "default": []},
            "started_with": {"type": "str", "required": True},
            "claims": {"type": "list", "elements": "str", "default": []},
            "force": {"type": "list", "elements": "str", "default": []},
            "remove": {"type": "list", "elements": "str", "default": []},
            "undeclared": {"type": "str", "choices": ["removed", "kept"], "default": "removed"},
            "restart": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )

    def run(command: list[str]) -> str:
        return str(module.run_command(command, check_rc=True)[1])

    parameters = module.params
    if parameters["restart"] and not parameters["wait"]:
        module.fail_json(msg="restart: true needs wait: true: one instance is restarted after another")
    template = Template(
        parameters["template"],
        tuple(parameters["files"]),
        parameters["started_with"],
        run,
        claims=tuple(parameters["claims"]),
        force=tuple(parameters["force"]),
    )
    declared, keep = parameters["instances"], parameters["undeclared"] == "kept"
    plan = template.plan(declared)
    removed = tuple(name for name in plan.remove if not keep or name in parameters["remove"])
    kept = [name for name in plan.remove if name not in removed]
    restarted = [name for group in plan.groups for name in group] if parameters["restart"] else []
    result: dict[str, Any] = {
        "changed": bool(removed or plan.enable or plan.start or plan.begin_again or restarted),
        "removed": list(removed),
        "enabled": list(plan.enable),
        "started": list(plan.start),
        "restarted": [*plan.begin_again, *restarted],
        "stale": [] if restarted else list(plan.stale),
        "blocked": [] if restarted else list(plan.blocked),
        "undeclared": kept,
        "in_the_way": [name for name in plan.in_the_way if name in kept],
        "groups": [] if restarted else [list(group) for group in plan.groups],
    }
    if not module.check_mode:
        try:
            template.apply(replace(plan, remove=removed), declared, parameters["timeout"] if parameters["wait"] else None, parameters["restart"])
        except InstanceError as error:
            module.fail_json(msg=str(error), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
