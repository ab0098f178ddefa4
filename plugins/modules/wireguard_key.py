#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: a private key of WireGuard that is made on its host and stays there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_key
short_description: A private key of WireGuard that stays on its host
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Makes a private key where there is none, readable by root alone, and returns the public key that belongs to it.
  - The private key is never returned and never shown.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
requirements: [wireguard-tools]
options:
  path:
    description: File of the private key.
    type: path
    required: true
  rotate:
    description: Whether to make a new key in any case.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Make the host's key
  sovereign.dify.wireguard_key:
    path: /etc/wireguard/wg0.key
  register: key
"""

RETURN = r"""
public_key:
  description: The public key. Empty in check mode while there is no key.
  type: str
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.private_file import is_private, make_private, write_private


def main() -> None:
    """Read the key, or make one."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "rotate": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    changed = module.params["rotate"] or not path.exists()
    if changed and not module.check_mode:
        write_private(path, wg(module, "genkey", ""))
    if not path.exists():
        module.exit_json(changed=True, public_key="")
    if not is_private(path):
        changed = True
        if not module.check_mode:
            make_private(path)
    module.exit_json(changed=changed, public_key=wg(module, "pubkey", path.read_text(encoding="ascii", errors="replace")).strip())


def wg(module: AnsibleModule, command: str, text: str) -> str:
    """Have ``wg`` make a key. What it prints goes to no log."""
    rc, out, err = module.run_command([module.get_bin_path("wg", required=True), command], data=text, binary_data=True)
    if rc:
        module.fail_json(
            msg=f"{module.params['path']} holds no key of WireGuard ({err.strip()}). Remove it and run again for all hosts: a new key is made, "
            "and the peers learn it"
        )
    return str(out)


if __name__ == "__main__":
    main()
