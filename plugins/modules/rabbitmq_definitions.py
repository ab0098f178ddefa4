#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: virtual hosts, users and policies of a RabbitMQ cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_definitions
short_description: Declare virtual hosts, users and policies of a RabbitMQ cluster, all in one call
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Exports the cluster's definitions, compares, and imports what differs. Passwords are compared with the salted hashes that the cluster has.
  - What is not declared is left alone, but for the user C(guest), who is deleted.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full, description: Says what differs.}
  platform: {platforms: debian}
options:
  vhosts:
    description: Virtual hosts beside C(/). Their queues are quorum queues unless a client wants others.
    type: list
    elements: str
    required: true
  users:
    description: By name C(permissions), by virtual host with C(configure), C(write) and C(read), and C(tags), if any.
    type: dict
    required: true
  passwords:
    description: By user.
    type: dict
    required: true
  policies:
    description: Each with C(name), C(vhost), C(pattern), C(definition) and, if wanted, C(apply_to) and C(priority).
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Declare the users
  sovereign.dify.rabbitmq_definitions:
    vhosts: [dify]
    users: {dify: {permissions: {dify: {configure: .*, write: .*, read: .*}}}}
    passwords: {dify: "{{ lookup('sovereign.dify.secret', 'rabbitmq/dify') }}"}
"""

RETURN = r"""
changes: {description: What differed., returned: always, type: list, elements: str}
"""

import json
import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.rabbitmq import missing

HOME = "/var/lib/rabbitmq"


def main() -> None:
    """Compare, import, report."""
    module = AnsibleModule(
        argument_spec={
            "vhosts": {"type": "list", "elements": "str", "required": True},
            "users": {"type": "dict", "required": True},
            "passwords": {"type": "dict", "required": True, "no_log": True},
            "policies": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )

    def run(*command: str) -> str:
        return str(module.run_command(["rabbitmqctl", "--quiet", *command], check_rc=True)[1])

    exported = run("export_definitions", "-", "--format", "json")
    present = json.loads(exported[exported.index("{") :])
    wanted, words = missing(present, **module.params)
    guest = "guest" in {user["name"] for user in present["users"]}
    if not module.check_mode:
        if wanted:
            # The wrapper of the command-line tool reads no standard input.
            with tempfile.NamedTemporaryFile("w", dir=HOME, prefix=".definitions-") as file:
                json.dump(wanted, file)
                file.flush()
                shutil.chown(file.name, "rabbitmq", "rabbitmq")
                run("import_definitions", str(Path(file.name)), "--format", "json")
        if guest:
            run("delete_user", "guest")
    words += ["user guest, deleted"] if guest else []
    module.exit_json(changed=bool(words), changes=words, diff={"before": "", "after": "".join(f"{word}\n" for word in words)})


if __name__ == "__main__":
    main()
