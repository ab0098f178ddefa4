#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: what roles ask of a host before they change it, in one look."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Look at a host's clock, packages, listening sockets and SSH connection at once
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads in one call what roles would each ask for in calls of their own. The playbooks register it as C(sovereign_host) in the preflight of each
    run, and P(sovereign.dify.packages_lacking#filter) and P(sovereign.dify.ports_in_doubt#filter) tell from it whether a role may have anything to
    do or to refuse. Where it may, or nothing was registered, the role looks for itself, by M(sovereign.dify.apt_packages) and
    M(sovereign.dify.port_owners).
  - It is no fact, because facts are cached, and what it reads is to be that of this run.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, description: Looks in check mode as well.}
  diff_mode: {support: none}
  platform: {platforms: debian}
options:
  before:
    description: The time at which the caller asked, in seconds since 1970. It is returned as it is, to be compared with RV(clock).
    type: float
"""

EXAMPLES = r"""
- name: Look at the host
  sovereign.dify.host_info:
  register: sovereign_host

- name: Install and hold the packages
  sovereign.dify.apt_packages:
    name: [haproxy]
  when: "['haproxy'] | sovereign.dify.packages_lacking(sovereign_host | default({})) | length > 0"
"""

RETURN = r"""
clock: {description: Seconds since 1970 by the host's clock., returned: always, type: float}
before: {description: O(before)., returned: always, type: float}
packages:
  description: The version of each package that is installed.
  returned: always
  type: dict
  sample: {haproxy: 3.0.11-1+deb13u1}
held: {description: Those of them that are held., returned: always, type: list, elements: str, sample: [haproxy]}
listening:
  description: TCP sockets that listen, and who holds each. None where the host lacks C(ss).
  returned: always
  type: list
  elements: dict
  sample: [{address: 198.18.1.61, port: 6379, process: redis-server, pid: 812, unit: redis-server.service}]
firewall:
  description: SHA-256 of the rules of each owner that the firewall's ruleset confirmed last holds as they are written.
  returned: always
  type: dict
  sample: {redis: 6f1c0c5e…}
machine_id: {description: The identity that the host's system was given when it was installed., returned: always, type: str}
session:
  description:
    - The SSH connection that this call came through, as the host's sshd sees it - the client's address, and the address and port that it came to.
    - Addresses are empty, and the port 0, where it came through none, such as a local one.
  returned: always
  type: dict
  sample: {client: 198.18.1.1, address: 198.18.1.11, port: 22}
"""

import time
from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.apt_packages import SHOWN, parse_packages
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.source import in_force
from ansible_collections.sovereign.dify.plugins.module_utils.port_owners import parse, unit_of
from ansible_collections.sovereign.dify.plugins.module_utils.ssh_session import Session, current


def main() -> None:
    """Look and report."""
    module = AnsibleModule(argument_spec={"before": {"type": "float"}}, supports_check_mode=True)
    clock, identity = time.time(), Path("/etc/machine-id")
    packages = parse_packages(module.run_command(["dpkg-query", "--show", SHOWN])[1])
    sockets = module.get_bin_path("ss")
    listening = parse(module.run_command([sockets, "-H", "-t", "-l", "-p", "-n"], check_rc=True)[1], unit_of) if sockets else None
    module.exit_json(
        changed=False,
        clock=clock,
        before=module.params["before"],
        packages={name: version for name, (version, dummy) in packages.items()},
        held=sorted(name for name, (dummy, wanted) in packages.items() if wanted == "hold"),
        firewall=in_force(),
        machine_id=identity.read_text(encoding="ascii").strip() if identity.is_file() else "",
        session=asdict(current() or Session("", "", 0)),
        listening=None if listening is None else [asdict(listener) for listener in listening],
    )


if __name__ == "__main__":
    main()
