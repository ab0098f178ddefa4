#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: a node of a RabbitMQ cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_node
short_description: Run a node of a RabbitMQ cluster
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Starts a node and waits until it has joined. A node that a package has started under another name is replaced; one of the cluster is not
    restarted.
  - The exception is a node that runs with another Erlang cookie than its file holds, as a wrong state directory leaves one. It refuses its own
    command-line tools and all nodes with the right cookie, until it is restarted.
  - What only a restart would take up is said in a warning, in each run.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: debian}
options:
  node:
    description: Name of this node.
    type: str
    required: true
  members:
    description: Names of all nodes.
    type: list
    elements: str
    required: true
  files:
    description: Files that the node reads when it starts.
    type: list
    elements: path
    required: true
  timeout:
    description: Longest wait, in seconds.
    type: int
    default: 180
"""

EXAMPLES = r"""
- name: Run the node
  sovereign.dify.rabbitmq_node:
    node: rabbit@10.1.1.11
    members: [rabbit@10.1.1.11, rabbit@10.1.1.12, rabbit@10.1.1.13]
    files: [/etc/rabbitmq/rabbitmq.conf]
"""

RETURN = r"""
changes: {description: What was done., returned: always, type: list, elements: str}
pending: {description: Files that only a restart would take up., returned: always, type: list, elements: str}
"""

import grp
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

UNIT = "rabbitmq-server"
# Of the host's key; the command-line tools run as this user, and they are nodes, too.
GROUP = "ssl-cert"
USER = "rabbitmq"


def main() -> None:
    """Look, start, report."""
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "required": True},
            "members": {"type": "list", "elements": "str", "required": True},
            "files": {"type": "list", "elements": "path", "required": True},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )

    def run(*command: str) -> str:
        return str(module.run_command(list(command), check_rc=True)[1])

    asked = "ActiveState,UnitFileState,NeedDaemonReload,ExecMainStartTimestamp"
    unit = dict(line.split("=", 1) for line in run("systemctl", "show", "--timestamp=unix", f"--property={asked}", UNIT).splitlines())
    fresh = not Path("/var/lib/rabbitmq/mnesia", module.params["node"]).exists()
    may_read = USER in grp.getgrnam(GROUP).gr_mem
    start = fresh or unit["ActiveState"] not in {"active", "reloading", "activating"}
    changes = ([] if may_read else ["joined the readers of the host's key"]) + (["started"] if start else [])
    changes += [] if unit["UnitFileState"] == "enabled" else ["enabled"]
    since = int(unit["ExecMainStartTimestamp"].removeprefix("@") or 0)
    pending = [] if start else [path for path in module.params["files"] if Path(path).exists() and int(Path(path).stat().st_mtime) > since]
    # The command-line tools take seconds to start, so they are asked only where the file is newer than the process.
    replace = any(path.endswith("/.erlang.cookie") for path in pending) and has_another_cookie(module)
    if replace:
        changes.append("restarted, since it ran with another Erlang cookie")
        pending = []
    if not module.check_mode:
        if not may_read:
            run("usermod", "--append", "--groups", GROUP, USER)
        if start or unit["NeedDaemonReload"] == "yes":
            run("systemctl", "daemon-reload")
        if changes:
            run("systemctl", "enable", "--quiet", "epmd.socket", UNIT)
        if fresh:
            # What the package has started has another name, and epmd listens everywhere.
            run("systemctl", "stop", UNIT, "epmd.service", "epmd.socket")
        if start:
            run("systemctl", "start", "epmd.socket")
            run("systemctl", "start", "--no-block", UNIT)
        if replace:
            run("systemctl", "restart", "--no-block", UNIT)
        if start or replace:
            rc, out, err = module.run_command(
                ["timeout", str(module.params["timeout"]), "sh", "-c", "until rabbitmqctl --quiet await_startup; do sleep 1; done"]
            )
            if rc:
                journal = module.run_command(["tail", "--lines=30", f"/var/log/rabbitmq/{module.params['node']}.log"])[1]
                module.fail_json(msg=f"The node did not start: {err or out}\nThe end of its log:\n{journal}", changes=changes, pending=pending)
    if pending:
        module.warn(f"Only a restart takes up {', '.join(pending)}. Run playbooks/ops/rolling_restart.yml, one node after another.")
    module.exit_json(changed=bool(changes), changes=changes, pending=pending)


def has_another_cookie(module: AnsibleModule) -> bool:
    """Tell whether the running node refuses the command-line tools, which read the Erlang cookie from the file."""
    rc, out, err = module.run_command(["rabbitmqctl", "--quiet", "eval", "ok."])
    # Of a node that does not run, the tools say that nobody listens.
    return bool(rc) and "TCP connection succeeded but Erlang distribution failed" in f"{out}{err}"


if __name__ == "__main__":
    main()
