#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: whether a member does its part in a set of Redis servers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_health
short_description: Wait until a member does its part in a set of Redis servers
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - All Sentinels answer and agree on who leads; this member leads and has enough replicas, or follows the one who leads; this Sentinel knows all
    others, and the quorum for a fail-over is there.
  - Changes nothing.
extends_documentation_fragment: [ansible.builtin.action_common_attributes, sovereign.dify.redis_member]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: debian}
options:
  min_replicas:
    description: Replicas that the master must have.
    type: int
    default: 0
  role:
    description: What this member must be, after a hand-over for instance.
    type: str
    choices: [any, master, replica]
    default: any
  timeout:
    description: Longest wait, in seconds.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Wait until the member follows
  sovereign.dify.redis_health:
    address: 10.1.1.11
    members: [10.1.1.11, 10.1.1.12, 10.1.1.13]
    name: mymaster
"""

RETURN = r"""
role: {description: What this member is., returned: always, type: str, sample: replica}
master: {description: Address of the member that leads., returned: always, type: str, sample: 10.1.1.12}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.redis_member import MEMBER, Member


def main() -> None:
    """Look until all is well, or time is up."""
    module = AnsibleModule(
        argument_spec={
            **MEMBER,
            "min_replicas": {"type": "int", "default": 0},
            "role": {"type": "str", "choices": ["any", "master", "replica"], "default": "any"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    member = Member(wanted["address"], wanted["members"], wanted["name"], lambda _command: "")
    deadline = time.monotonic() + wanted["timeout"]
    while True:
        faults, facts = member.faults(wanted["min_replicas"])
        if wanted["role"] not in {"any", facts["role"]}:
            faults.append(f"this member is a {facts['role']}, not a {wanted['role']}")
        if not faults:
            module.exit_json(changed=False, **facts)
        if time.monotonic() > deadline:
            module.fail_json(msg=f"After {wanted['timeout']} s: {'; '.join(faults)}.", **facts)
        time.sleep(1)


if __name__ == "__main__":
    main()
