#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: one nftables table of our own, applied so that it cannot lock anybody out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nftables_table
short_description: Apply one nftables table, with a way back
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Joins files into the ruleset of one table and puts it in the place of the live one in a single transaction. Other tables are never touched,
    and a ruleset that would touch them is refused.
  - The ruleset is first loaded in a network namespace of its own, where it touches no packet. What the kernel refuses there is never applied, and
    the message names file and line. How the kernel lists it there is compared with the live table, so that a table which somebody has edited or
    flushed is found and repaired.
  - A change starts a timer that brings the table of before back. The task then drops its connection, connects anew, and over that new
    connection stops the timer and writes O(dest). When the new rules let no new connection in, the host returns to the old ones by itself and
    the task fails. O(dest) only ever holds a ruleset that has been confirmed, so a reboot cannot bring a bad one back.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full, description: Shows the live table and the one that replaces it as nftables lists them.}
  platform: {platforms: posix}
  action:
    support: partial
    description: Without its action plugin the module leaves the confirmation to a second task with O(state=confirmed).
requirements: [nftables, systemd, util-linux]
options:
  name:
    description: Name of the table.
    type: str
    required: true
  family:
    description: Address family of the table.
    type: str
    choices: [inet, ip, ip6, arp, bridge]
    default: inet
  src:
    description:
      - Files on the host that together define the table, in order. A directory stands for its C(*.nft) files, sorted by name.
      - They only define; emptying the table first, in the same transaction, is done for them.
    type: list
    elements: path
    default: []
  dest:
    description: File that holds the last confirmed ruleset, to be loaded at boot.
    type: path
    required: true
  state:
    description:
      - V(present) applies O(src).
      - V(confirmed) keeps what was applied. The action plugin does this by itself.
      - V(absent) removes the table and O(dest).
    type: str
    choices: [present, confirmed, absent]
    default: present
  rollback:
    description: Seconds after which an unconfirmed change is taken back. 0 applies for good at once.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Apply the firewall's rules
  sovereign.dify.nftables_table:
    name: sovereign
    src: [/etc/sovereign/firewall/base.nft, /etc/sovereign/firewall/rules.d]
    dest: /etc/sovereign/firewall/ruleset.nft

- name: Remove the firewall's rules
  sovereign.dify.nftables_table:
    name: sovereign
    dest: /etc/sovereign/firewall/ruleset.nft
    state: absent
"""

RETURN = r"""
ready:
  description: Whether nftables and the files are there; in check mode on a fresh host they are not yet.
  type: bool
  returned: success
pending:
  description: Whether a change waits for its confirmation.
  type: bool
  returned: always
drift:
  description: Whether the live table had been changed by somebody else since it was last confirmed.
  type: bool
  returned: always
rolled_back:
  description: Whether the confirmation came too late and the table of before is back.
  type: bool
  returned: when a confirmation fails
"""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.kernel import NftError
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.table import Outcome, RefusedError, RolledBackError, Table
from ansible_collections.sovereign.dify.plugins.module_utils.private_file import write_private

PENDING = Path("/run/nftables-pending")
# Lines of a difference that a message shows.
SHOWN_LINES = 14


def main() -> None:
    """Translate between Ansible and the table."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "family": {"type": "str", "choices": ["inet", "ip", "ip6", "arp", "bridge"], "default": "inet"},
            "src": {"type": "list", "elements": "path", "default": []},
            "dest": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "confirmed", "absent"], "default": "present"},
            "rollback": {"type": "int", "default": 60},
        },
        required_if=[("state", "present", ["src"])],
        supports_check_mode=True,
    )
    # Neither nft nor systemd-run's target is on the path of an unprivileged login; complaints are compared with English ones.
    module.run_command_environ_update = {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    if module.get_bin_path("nft") is None:
        if module.check_mode:
            module.exit_json(
                changed=module.params["state"] == "present", pending=False, drift=False, ready=False, msg="nftables is not installed yet"
            )
        module.fail_json(msg="nftables is not installed")

    def run(command: Sequence[str], text: str) -> tuple[int, str, str]:
        rc, out, err = module.run_command(list(command), data=text, binary_data=True)
        return rc, out, err

    name = f"{module.params['family']} {module.params['name']}"
    table = Table(name, Path(module.params["dest"]), PENDING / name.replace(" ", "-"), run, write_private)
    try:
        outcome = act(module, table)
    except FileNotFoundError as error:
        if module.check_mode:
            module.exit_json(changed=True, pending=False, drift=False, ready=False, msg=f"{error} is not written yet")
        module.fail_json(msg=f"{error} is missing on the host: run the firewall role before the roles that declare rules")
    except RefusedError as error:
        module.fail_json(msg=f"The ruleset of table {name} is refused, the live one is untouched: {error}")
    except RolledBackError:
        module.fail_json(msg="The change was taken back before anybody confirmed it", rolled_back=True)
    except NftError as error:
        module.fail_json(msg=str(error))
    if outcome.drift:
        module.warn(f"Table {name} was not as it was applied last: somebody had changed or removed it")
    heading = f"table {name}" if module.params["state"] != "confirmed" else module.params["dest"]
    if module.check_mode and outcome.changed:
        # A caller that only compares fails with this.
        lines = list(difflib.unified_diff(outcome.before.splitlines(), outcome.after.splitlines(), "in force", "declared", lineterm="", n=0))
        summary = f"{heading} is not what the files declare. In force (-) and declared (+), {len(lines)} lines: "
        explained = {"msg": summary + " | ".join(line.strip() for line in lines[2:SHOWN_LINES])}
    else:
        explained = {}
    module.exit_json(
        changed=outcome.changed,
        ready=True,
        **explained,
        pending=outcome.pending,
        drift=outcome.drift,
        diff={"before": outcome.before, "after": outcome.after, "before_header": heading, "after_header": heading},
    )


def act(module: AnsibleModule, table: Table) -> Outcome:
    """Do what is asked for."""
    if module.params["state"] == "absent":
        return table.absent(check=module.check_mode)
    if module.params["state"] == "confirmed":
        return Outcome(changed=False) if module.check_mode else table.confirm()
    return table.present(module.params["src"], module.params["rollback"], check=module.check_mode)


if __name__ == "__main__":
    main()
