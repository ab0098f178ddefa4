#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: a member of a set of Redis servers that Sentinels watch."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_member
short_description: Run a Redis and its Sentinel as a member of a set
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Starts a new member as a replica of whoever leads. The running set is asked for that, never the inventory; where nothing runs, the first of
    O(members) leads.
  - Afterwards brings settings and users into force while both services run (C(CONFIG SET), C(ACL LOAD), C(SENTINEL SET)). What Redis and Sentinel
    write down themselves, such as the outcome of a fail-over, is never touched, and nothing is restarted.
  - What only a restart would take up is said in a warning, in each run.
  - A service that was started with the users of another state directory refuses every user of its file, and is restarted.
  - Works on the files of the role P(sovereign.dify.redis#role), which are in place before it is called.
extends_documentation_fragment: [ansible.builtin.action_common_attributes, sovereign.dify.redis_member]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full, description: Secrets are hidden.}
  platform: {platforms: debian}
options:
  ping_period:
    description:
      - Milliseconds between two pings of this host's Sentinel (C(SENTINEL DEBUG PING-PERIOD)). Left at what it is if not given, which is 1000 after a
        start.
    type: int
  timeout:
    description: Longest wait for the services to come up, in seconds.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Run the member
  sovereign.dify.redis_member:
    address: 10.1.1.11
    members: [10.1.1.11, 10.1.1.12, 10.1.1.13]
    name: mymaster
"""

RETURN = r"""
changes: {description: What was not as wanted., returned: always, type: list, elements: str}
pending: {description: What only a restart would take up., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.redis_client import RedisError
from ansible_collections.sovereign.dify.plugins.module_utils.redis_member import MEMBER, Member, MemberError


def main() -> None:
    """Compare, apply, report."""
    module = AnsibleModule(
        argument_spec={
            **MEMBER,
            "ping_period": {"type": "int"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )

    def run(command: list[str]) -> str:
        return str(module.run_command(command, check_rc=True)[1])

    member = Member(module.params["address"], module.params["members"], module.params["name"], run, ping_period=module.params["ping_period"])
    try:
        member.bring_up(module.check_mode, module.params["timeout"])
    except (MemberError, RedisError, OSError) as error:
        message = str(error)
        if message.startswith("WRONGPASS"):
            message = (
                "The running service knows none of the administrator's passwords. To change it, give a list of the new one and the old one first."
            )
        module.fail_json(msg=message, changed=bool(member.done), changes=[change.what for change in member.done], pending=member.pending)
    if member.pending:
        module.warn(f"Only a restart takes this up: {'; '.join(member.pending)}. Run playbooks/ops/rolling_restart.yml, one member after another.")
    module.exit_json(
        changed=bool(member.done),
        changes=[change.what for change in member.done],
        pending=member.pending,
        diff={
            "before": "".join(change.line(change.before) for change in member.done),
            "after": "".join(change.line(change.after) for change in member.done),
        },
    )


if __name__ == "__main__":
    main()
