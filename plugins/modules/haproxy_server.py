#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: take a server out of HAProxy's backends, or back in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_server
short_description: Take a server out of HAProxy's backends, or back in
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Sets by HAProxy's runtime socket whether a server gets new requests, and waits until that has come true.
  - A server that is dead already is drained like any other; M(community.general.haproxy) waits in vain for it.
  - What is set ends with HAProxy's restart; whether it outlives a reload is up to HAProxy's configuration.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
options:
  socket:
    description: HAProxy's runtime socket, of level C(admin).
    type: path
    default: /run/haproxy/admin.sock
  server:
    description: Name of the server.
    type: str
    required: true
  backends:
    description: Names of the backends. The server must be in each of them, unless O(missing) says otherwise.
    type: list
    elements: str
    required: true
  missing:
    description: Whether a backend that does not exist, or does not have the server, is refused, or needs nothing.
    type: str
    choices: [refused, ignored]
    default: refused
  state:
    description:
      - V(drained) gives the server no new request and waits until it has answered those that it has.
      - V(ready) lets it have requests again and waits until its checks succeed.
    type: str
    choices: [drained, ready]
    required: true
  wait:
    description: Whether to wait until the state is reached, rather than only set.
    type: bool
    default: true
  timeout:
    description: Seconds to wait.
    type: float
    default: 300.0
"""

EXAMPLES = r"""
- name: Let no new request reach the server, and wait for the old ones
  sovereign.dify.haproxy_server:
    server: hq-gpu1
    backends: [model_assistant, model_risk-scoring]
    state: drained
    timeout: 600
"""

RETURN = r"""
servers:
  description: The server in each backend, afterwards.
  returned: success
  type: list
  elements: dict
  contains:
    backend: {description: Name of the backend., type: str}
    name: {description: Name of the server., type: str}
    drained: {description: Whether it is out of rotation., type: bool}
    maintenance: {description: 'Whether it is out altogether, checks included.', type: bool}
    alive: {description: Whether its checks succeed., type: bool}
    sessions: {description: Requests that it is answering., type: int}
    status: {description: "HAProxy's word for all of it.", type: str}
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.haproxy import HaproxyError, Server, runtime, select, servers, settle


def main() -> None:
    """Read the parameters, set, wait, report."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            "server": {"type": "str", "required": True},
            "backends": {"type": "list", "elements": "str", "required": True},
            "missing": {"type": "str", "choices": ["refused", "ignored"], "default": "refused"},
            "state": {"type": "str", "choices": ["drained", "ready"], "required": True},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 300.0},
        },
        supports_check_mode=True,
    )
    name, backends, state = module.params["server"], module.params["backends"], module.params["state"]
    ask = runtime(module.params["socket"])
    try:
        if module.params["missing"] == "ignored":
            backends = [server.backend for server in servers(ask) if server.name == name and server.backend in backends]
        before = after = select(servers(ask), name, backends)
        if not module.check_mode:
            after = settle(ask, name, backends, state, module.params["timeout"] if module.params["wait"] else None)
    except OSError as error:
        module.fail_json(msg=f"HAProxy does not answer at {module.params['socket']}: {error}")
    except HaproxyError as error:
        module.fail_json(msg=str(error))
    wanted = {server.backend: state for server in before}
    module.exit_json(
        changed=states(before) != wanted,
        servers=[asdict(server) for server in after],
        diff={"before": states(before), "after": wanted},
    )


def states(listed: list[Server]) -> dict[str, str]:
    """State that is set for the server, by backend."""
    return {server.backend: server.set_to for server in listed}


if __name__ == "__main__":
    main()
