#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: the SSH connection that Ansible itself came through."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_session_info
short_description: The SSH connection that Ansible itself came through
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Tells from where, to which address of the host, and to which port Ansible's own connection came, as the host's sshd sees it.
    A jump host or a forwarded port on the way makes this different from what the inventory says.
  - Works with privilege escalation, too, although sudo clears C(SSH_CONNECTION).
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, description: Looks in check mode as well.}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  networks:
    description: Networks that may open SSH, to compare the connection with.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Find the connection
  sovereign.dify.ssh_session_info:
    networks: [198.18.0.0/15]
"""

RETURN = r"""
found:
  description: Whether Ansible came through SSH.
  type: bool
  returned: always
client:
  description: Address that the connection came from, empty without one.
  type: str
  returned: always
address:
  description: Address of the host that the connection came to, empty without one.
  type: str
  returned: always
port:
  description: Port of the host that the connection came to, 0 without one.
  type: int
  returned: always
within:
  description: Whether O(networks) hold the address that the connection came from.
  type: bool
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.ssh_session import current, within


def main() -> None:
    """Look and report."""
    module = AnsibleModule(argument_spec={"networks": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True)
    session = current()
    try:
        inside = session is not None and within(session.client, module.params["networks"])
    except ValueError as error:
        module.fail_json(msg=f"networks: {error}")
    module.exit_json(
        changed=False,
        found=session is not None,
        client=session.client if session else "",
        address=session.address if session else "",
        port=session.port if session else 0,
        within=inside,
    )


if __name__ == "__main__":
    main()
