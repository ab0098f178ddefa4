#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: refuse ports that something else listens on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_owners
short_description: Refuse ports that something else listens on
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Fails where a TCP port that a role is about to take is held by a process that is not in one of the role's own units, and names address, process
    and unit. Sockets of the role's own units are no obstacle, so that it is silent on a host that the role has configured, wholly or in part.
  - Changes nothing.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, description: Looks in check mode as well.}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  listen:
    description: What the role is about to listen at.
    type: list
    elements: dict
    required: true
    suboptions:
      address: {description: "Address; C(0.0.0.0) and C(::) stand for all.", type: str, required: true}
      ports: {description: "Ports; none where the list is empty.", type: list, elements: int, required: true}
  units:
    description: Units that listen there when the role has done its work, or that it replaces. Patterns as of a shell are allowed.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse ports that something else listens on
  sovereign.dify.port_owners:
    listen:
      - {address: 198.18.1.61, ports: [6379, 26379]}
    units: [redis-server.service, redis-sentinel.service]
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.port_owners import foreign, parse, unit_of


def main() -> None:
    """Look and judge."""
    module = AnsibleModule(
        argument_spec={
            "listen": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"address": {"type": "str", "required": True}, "ports": {"type": "list", "elements": "int", "required": True}},
            },
            "units": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    text = module.run_command([module.get_bin_path("ss", required=True), "-H", "-t", "-l", "-p", "-n"], check_rc=True)[1]
    in_the_way = foreign(parse(text, unit_of), module.params["listen"], module.params["units"])
    if in_the_way:
        module.fail_json(
            msg=f"{'; '.join(map(str, in_the_way))}. Stop and disable what listens there, or move it to another address or port, and run this again. "
            f"Only {', '.join(module.params['units'])} may listen there. Nothing was changed."
        )
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
