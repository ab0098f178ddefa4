#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: the configuration of a WireGuard interface, completed with the private key on its host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_config
short_description: Configuration of a WireGuard interface
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Completes a configuration with the private key that lies on the host, and writes it in wg-quick's form, readable by root alone.
  - Compares it with the live interface, too, and says what brings that up to date. A peer that somebody added or removed by hand is found.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full, description: Secrets are hidden.}
  platform: {platforms: posix}
requirements: [wireguard-tools, iproute2]
options:
  path:
    description: File to write. Its name without C(.conf) is the interface.
    type: path
    required: true
  private_key_file:
    description: File on the host that holds the private key.
    type: path
    required: true
  content:
    description: The configuration without C(PrivateKey).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write the configuration
  sovereign.dify.wireguard_config:
    path: /etc/wireguard/wg0.conf
    private_key_file: /etc/wireguard/wg0.key
    content: "{{ lookup('ansible.builtin.template', 'wg.conf.j2') }}"
  no_log: true
"""

RETURN = r"""
action:
  description: What brings the live interface up to date, as the state of its service. A new endpoint of a peer shows in the file alone, and not here.
  type: str
  choices: ["", reloaded, restarted]
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.private_file import is_private, write_private
from ansible_collections.sovereign.dify.plugins.module_utils.wireguard import (
    ConfigError,
    Interface,
    masked,
    parse_config,
    parse_live,
    wanted_action,
    with_private_key,
)


def main() -> None:
    """Complete, compare, write."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "private_key_file": {"type": "path", "required": True, "no_log": False},
            "content": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    path, key = Path(module.params["path"]), Path(module.params["private_key_file"])
    if module.check_mode and not key.exists():
        module.exit_json(changed=True, action="restarted")
    try:
        text = with_private_key(module.params["content"], key.read_text(encoding="ascii").strip())
        wanted = parse_config(text)
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=f"{path} is not written: {error}")
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    action = wanted_action(wanted, live_interface(module, path.stem))
    written = before != text
    exposed = path.exists() and not is_private(path)
    if (written or exposed) and not module.check_mode:
        write_private(path, text)
    module.exit_json(
        changed=written or exposed or bool(action),
        action=action,
        diff={"before": masked(before), "after": masked(text), "before_header": str(path), "after_header": str(path)},
    )


def live_interface(module: AnsibleModule, name: str) -> Interface | None:
    """Read the interface as it is; None where there is none, or no program to ask."""
    wg, ip = module.get_bin_path("wg"), module.get_bin_path("ip")
    if not (wg and ip):
        return None
    rc, dump, dummy = module.run_command([wg, "show", name, "dump"])
    ip_rc, addresses, dummy = module.run_command([ip, "-json", "address", "show", "dev", name])
    return None if rc or ip_rc else parse_live(dump, addresses)[0]


if __name__ == "__main__":
    main()
