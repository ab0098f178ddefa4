#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: how a WireGuard interface and its peers are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_info
short_description: How a WireGuard interface and its peers are
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Tells when each peer was heard last, and what drives WireGuard on this host. Works where neither is there yet.
  - Warns of peers that are silent after O(wait) seconds; a silent peer is no failure.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, description: Looks in check mode as well.}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  interface:
    description: Name of the interface.
    type: str
    default: wg0
  names:
    description: Names of peers by their public keys, for messages.
    type: dict
    default: {}
  max_age:
    description: Age of a handshake, in seconds, after which a peer counts as silent. Sessions that are in use renew theirs after 120.
    type: int
    default: 180
  wait:
    description: Seconds to wait for peers that are silent.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Wait for the peers
  sovereign.dify.wireguard_info:
    wait: 15
"""

RETURN = r"""
kernel:
  description: Whether the kernel has WireGuard. Otherwise wireguard-go can drive it where there is C(/dev/net/tun).
  type: bool
  returned: always
tun:
  description: Whether there is C(/dev/net/tun).
  type: bool
  returned: always
up:
  description: Whether the interface is there.
  type: bool
  returned: always
peers:
  description: The peers of the interface.
  type: list
  elements: dict
  returned: always
  contains:
    name: {description: 'Its name, or its public key where no name is known.', type: str}
    public_key: {description: Its public key., type: str}
    endpoint: {description: Where it was seen last., type: str}
    handshake_age: {description: 'Seconds since the last handshake, -1 if there was none.', type: int}
    received: {description: Bytes received from it., type: int}
    sent: {description: Bytes sent to it., type: int}
silent:
  description: Names of the peers without a recent handshake.
  type: list
  elements: str
  returned: always
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.wireguard import Seen, parse_live, silent


def main() -> None:
    """Look, and look again until all are heard or the time is up."""
    module = AnsibleModule(
        argument_spec={
            "interface": {"type": "str", "default": "wg0"},
            "names": {"type": "dict", "default": {}},
            "max_age": {"type": "int", "default": 180},
            "wait": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    deadline = time.monotonic() + module.params["wait"]
    while True:
        seen = life_signs(module)
        now = int(time.time())
        missing = [module.params["names"].get(key, key) for key in silent(seen or {}, now, module.params["max_age"])]
        if not missing or time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    if module.params["wait"]:
        for name in missing:
            module.warn(f"No handshake with {name} in the last {module.params['max_age']} seconds: is it up, and does UDP reach it?")
    module.exit_json(
        changed=False,
        kernel=kernel_has_it(module),
        tun=Path("/dev/net/tun").exists(),
        up=seen is not None,
        peers=[
            {
                "name": module.params["names"].get(key, key),
                "public_key": key,
                "endpoint": signs.endpoint,
                "handshake_age": now - signs.handshake if signs.handshake else -1,
                "received": signs.received,
                "sent": signs.sent,
            }
            for key, signs in (seen or {}).items()
        ],
        silent=missing,
    )


def life_signs(module: AnsibleModule) -> dict[str, Seen] | None:
    """Ask for the peers; None where there is no such interface, or no program to ask."""
    wg, ip = module.get_bin_path("wg"), module.get_bin_path("ip")
    if not (wg and ip):
        return None
    rc, dump, dummy = module.run_command([wg, "show", module.params["interface"], "dump"])
    ip_rc, addresses, dummy = module.run_command([ip, "-json", "address", "show", "dev", module.params["interface"]])
    return None if rc or ip_rc else parse_live(dump, addresses)[1]


def kernel_has_it(module: AnsibleModule) -> bool:
    """Look for the module among those loaded (a container sees its host's), then among those that could be."""
    if Path("/sys/module/wireguard").exists():
        return True
    modprobe = module.get_bin_path("modprobe")
    return bool(modprobe) and module.run_command([modprobe, "--dry-run", "--quiet", "wireguard"])[0] == 0


if __name__ == "__main__":
    main()
