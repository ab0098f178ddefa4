#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: the configuration that the members of a Patroni cluster share."""

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_config
short_description: The configuration that the members of a Patroni cluster share
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Keeps Patroni's dynamic configuration equal to what is declared, by the REST API of one member, and tells who leads and who needs a restart.
  - What is not declared is left as it is and returned as RV(unmanaged). A key that shall go is declared as null.
  - Waits for a leader first, and after a change until the members have seen it.
  - Restarts nothing.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, details: "Where no Patroni answers, it is taken for one that an earlier task would have started."}
  diff_mode: {support: full}
  platform: {platforms: posix}
options:
  url:
    description: Where the member's REST API listens.
    type: str
    required: true
  ca:
    description: File (PEM) of the authorities that the member is verified against.
    type: path
    required: true
  certificate:
    description: File (PEM) of the certificate that the member is shown.
    type: path
    required: true
  key:
    description: File (PEM) of its key.
    type: path
    required: true
  config:
    description: What shall hold, nested as Patroni does.
    type: dict
    required: true
  timeout:
    description: Seconds to wait for a leader.
    type: float
    default: 180.0
"""

EXAMPLES = r"""
- name: Apply the configuration that the members share
  sovereign.dify.patroni_config:
    url: https://198.18.1.41:8008
    ca: /etc/sovereign/pki/ca.crt
    certificate: /etc/sovereign/pki/host.crt
    key: /etc/sovereign/pki/host.key
    config:
      synchronous_mode: true
      postgresql:
        parameters: {max_connections: 300, work_mem: null}
  run_once: true
"""

RETURN = r"""
leader: {description: Name of the member that leads; empty if nobody answers in check mode., returned: success, type: str}
members:
  description: The members, afterwards.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Name., type: str}
    role: {description: "Patroni's word for what it is.", type: str}
    state: {description: "Patroni's word for how it is.", type: str}
    pending_restart: {description: Whether it needs a restart., type: bool}
    reasons: {description: 'Old and new value of each parameter that needs it.', type: dict}
pending_restart: {description: Names of the members that need a restart., returned: success, type: list, elements: str}
unmanaged: {description: Dotted paths of what is set and not declared., returned: success, type: list, elements: str}
patch: {description: What was changed., returned: success, type: dict}
"""

import json
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.patroni import Cluster, PatroniError, difference, merged, rest, undeclared


def main() -> None:
    """Wait for a leader, compare, change, report."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "ca": {"type": "path", "required": True},
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
            "config": {"type": "dict", "required": True},
            "timeout": {"type": "float", "default": 180.0},
        },
        supports_check_mode=True,
    )
    declared = module.params["config"]
    try:
        try:
            cluster = Cluster(rest(module.params["url"], module.params["ca"], module.params["certificate"], module.params["key"], timeout=10))
            if module.check_mode:
                cluster.members()
        except OSError:
            # Neither certificates nor a server yet, on a fresh host.
            if not module.check_mode:
                raise
            module.exit_json(changed=True, leader="", members=[], pending_restart=[], unmanaged=[], patch=declared)
        leader = cluster.wait_for_leader(module.params["timeout"])
        found = cluster.config()
        patch = difference(declared, found)
        members = cluster.members()
        if patch and not module.check_mode:
            cluster.patch(patch)
            if "postgresql" in patch:
                # A member sees a change at the next turn of its loop, and tells the others in the one after.
                members = cluster.settle(members, 2 * float(merged(found, patch).get("loop_wait", 10)))
    except OSError as error:
        module.fail_json(msg=f"Patroni does not answer at {module.params['url']}: {error}")
    except PatroniError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(patch),
        leader=leader,
        members=[asdict(member) for member in members],
        pending_restart=[member.name for member in members if member.pending_restart],
        unmanaged=undeclared(declared, found),
        patch=patch,
        diff={"before": pretty(found), "after": pretty(merged(found, patch))},
    )


def pretty(config: dict[str, object]) -> str:
    """Write a configuration so that two of them can be compared by lines."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
