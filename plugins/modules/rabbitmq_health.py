#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: whether a RabbitMQ cluster is whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_health
short_description: Wait until a RabbitMQ cluster is whole
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - All members run, nobody else belongs to the cluster, it is not divided, no node is drained and no alarm stops publishers.
  - Feature flags that are off, and that a newer release may need, are said in a warning.
  - Changes nothing.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: debian}
options:
  members:
    description: Names of all nodes.
    type: list
    elements: str
    required: true
  timeout:
    description: Longest wait, in seconds.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Wait until the cluster is whole
  sovereign.dify.rabbitmq_health:
    members: [rabbit@10.1.1.11, rabbit@10.1.1.12, rabbit@10.1.1.13]
"""

RETURN = r"""
running: {description: Nodes that run., returned: success, type: list, elements: str}
"""

import json
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.rabbitmq import faults


def main() -> None:
    """Look until all is well, or time is up."""
    module = AnsibleModule(
        argument_spec={
            "members": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    deadline = time.monotonic() + module.params["timeout"]
    while True:
        rc, out, err = module.run_command(["rabbitmqctl", "--quiet", "cluster_status", "--formatter", "json"])
        if rc == 0:
            status = json.loads(out[out.index("{") :])
            found, warnings = faults(status, module.params["members"])
            if not found:
                for warning in warnings:
                    module.warn(warning)
                module.exit_json(changed=False, running=sorted(status["running_nodes"]))
        else:
            found = [err.strip() or out.strip()]
        if time.monotonic() > deadline:
            module.fail_json(msg=f"After {module.params['timeout']} s: {'; '.join(found)}.")
        time.sleep(1)


if __name__ == "__main__":
    main()
