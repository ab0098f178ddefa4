#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: whether a member of an object storage does its part."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swift_health
short_description: Wait until a member of an object storage does its part
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Waits until the member's servers answer, a majority of the members can be reached, and those have the same rings.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: debian}
options:
  address:
    description: The member's address, as the rings have it.
    type: str
    required: true
  members:
    description: Addresses of all members, as the rings have them.
    type: list
    elements: str
    required: true
  ports:
    description: Ports of C(account), C(container), C(object), C(rsync) and C(proxy).
    type: dict
    required: true
  replicated:
    description: Whether to wait until all members have looked through all they have since the call, and everything is where it shall be.
    type: bool
    default: false
  timeout:
    description: Longest wait, in seconds.
    type: int
    default: 90
"""

EXAMPLES = r"""
- name: Wait until all copies are there
  sovereign.dify.swift_health:
    address: 127.1.1.11
    members: [127.1.1.11, 127.1.1.12, 127.1.1.13]
    ports: {account: 6202, container: 6201, object: 6200, rsync: 6203, proxy: 8080}
    replicated: true
    timeout: 600
"""

RETURN = r"""
waited: {description: Seconds that it took., returned: success, type: float}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.swift_health import Health


def main() -> None:
    """Look until all is well, or time is up."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "members": {"type": "list", "elements": "str", "required": True},
            "ports": {"type": "dict", "required": True},
            "replicated": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    params = module.params
    health = Health(params["address"], params["members"], {name: int(port) for name, port in params["ports"].items()})
    begun, since = time.monotonic(), time.time() if params["replicated"] else None
    while True:
        try:
            found = health.faults(since)
        except (OSError, ValueError) as error:
            found = [str(error)]
        waited = time.monotonic() - begun
        if not found:
            module.exit_json(changed=False, waited=round(waited, 1))
        if waited > params["timeout"]:
            module.fail_json(msg=f"After {params['timeout']} s: {'; '.join(found)}.")
        time.sleep(1)


if __name__ == "__main__":
    main()
