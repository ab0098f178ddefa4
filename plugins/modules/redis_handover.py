#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: another member of a set of Redis servers leads."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_handover
short_description: Have another member of a set of Redis servers lead
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Before a member is restarted or its host is taken down. Nothing is done on a member that does not lead.
  - Writers wait until a replica has everything and the Sentinels have made one the master; nothing that was acknowledged is lost.
extends_documentation_fragment: [ansible.builtin.action_common_attributes, sovereign.dify.redis_member]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: debian}
options:
  timeout:
    description: Longest time that writers wait, in seconds. Afterwards this member goes on leading.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Hand over
  sovereign.dify.redis_handover:
    address: 10.1.1.11
    members: [10.1.1.11, 10.1.1.12, 10.1.1.13]
    name: mymaster
"""

RETURN = r"""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.redis_client import RedisError
from ansible_collections.sovereign.dify.plugins.module_utils.redis_member import MEMBER, Member, MemberError


def main() -> None:
    """Hand over, report."""
    module = AnsibleModule(
        argument_spec={
            **MEMBER,
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    member = Member(module.params["address"], module.params["members"], module.params["name"], lambda dummy: "")
    try:
        module.exit_json(changed=member.hand_over(module.check_mode, module.params["timeout"]))
    except (MemberError, RedisError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
