#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: who is behind HAProxy's backends."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_info
short_description: Tell who is behind HAProxy's backends
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads from HAProxy's runtime socket which servers are alive, and waits until each of the named backends has one.
  - Warns of servers that somebody has taken out of rotation, for instance a run that was killed before it had put them back.
  - Compares what HAProxy has loaded with what is written on the host, for instance by a run that was killed before it had reloaded HAProxy.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  socket:
    description: HAProxy's runtime socket.
    type: path
    default: /run/haproxy/admin.sock
  backends:
    description: Names of the backends.
    type: list
    elements: str
    default: []
  wait:
    description: Seconds to wait for a server that is alive in each of them, and for what was written to be loaded.
    type: float
    default: 0.0
  empty:
    description:
      - V(refused) fails where nobody is alive in a backend when the time is over, or where there is no such backend.
      - V(ignored) tells what there is, and waits for nobody.
    type: str
    choices: [refused, ignored]
    default: refused
  configuration:
    description:
      - HAProxy's configuration file, compared with what the process has loaded. It says C(setenv CONFIGURATION_DIGEST) in its section C(global), with
        a digest of everything that belongs to it. Tables that were loaded from files are compared with those.
      - Where the file or the socket does not exist, nothing is compared.
    type: path
  digest:
    description: What O(configuration) should have loaded, where the file itself may be out of date.
    type: str
  mismatch:
    description: V(refused) fails where something differs; V(reported) returns it.
    type: str
    choices: [refused, reported]
    default: refused
"""

EXAMPLES = r"""
- name: Wait until somebody leads
  sovereign.dify.haproxy_info:
    socket: /run/service_proxy/admin.sock
    backends: [postgresql, redis]
    wait: 30

- name: See who is out of rotation, whoever is alive
  sovereign.dify.haproxy_info:
    backends: [model_assistant, model_risk-scoring]
    empty: ignored

- name: See whether HAProxy runs what is written
  sovereign.dify.haproxy_info:
    configuration: /etc/haproxy/haproxy.cfg
    mismatch: reported
"""

RETURN = r"""
servers:
  description: The servers of those backends.
  returned: success
  type: list
  elements: dict
  contains:
    backend: {description: Name of the backend., type: str}
    name: {description: Name of the server., type: str}
    alive: {description: Whether its checks succeed., type: bool}
    set_to: {description: "C(drained) where somebody has taken it out of rotation, C(ready) otherwise.", type: str}
    status: {description: HAProxy's word for it., type: str}
    check: {description: What the last check gave., type: str}
    sessions: {description: Sessions that it has., type: int}
differences:
  description: What HAProxy runs and is written otherwise, in sentences.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.haproxy import HaproxyError, await_alive, await_loaded, runtime, servers


def main() -> None:
    """Look, wait, report."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            "backends": {"type": "list", "elements": "str", "default": []},
            "wait": {"type": "float", "default": 0.0},
            "empty": {"type": "str", "choices": ["refused", "ignored"], "default": "refused"},
            "configuration": {"type": "path"},
            "digest": {"type": "str"},
            "mismatch": {"type": "str", "choices": ["refused", "reported"], "default": "refused"},
        },
        supports_check_mode=True,
    )
    ask, backends = runtime(module.params["socket"]), module.params["backends"]
    configuration = Path(module.params["configuration"] or "")
    found, different = [], []
    try:
        if configuration.is_file() and Path(module.params["socket"]).exists():
            different = await_loaded(ask, configuration, module.params["digest"], module.params["wait"])
        if not backends:
            pass
        elif module.params["empty"] == "ignored":
            found = [server for server in servers(ask) if server.backend in backends]
        else:
            found = await_alive(ask, backends, module.params["wait"])
    except (HaproxyError, OSError) as error:
        module.fail_json(msg=f"{module.params['socket']}: {error}")
    for server in found:
        if server.set_to == "drained":
            module.warn(
                f"{server.backend}/{server.name} gets no requests ({server.status}): somebody has taken it out of rotation, or a run that was ended "
                "before it had put it back. sovereign.dify.haproxy_server puts it back with state: ready."
            )
    if different and module.params["mismatch"] == "refused":
        module.fail_json(
            msg=f"{'; '.join(different)}. A run was ended between writing and reloading, or somebody changed something by hand. Run the role that "
            "configures it (playbooks/site.yml), which reloads HAProxy."
        )
    keys = ("backend", "name", "alive", "set_to", "status", "check", "sessions")
    module.exit_json(changed=False, servers=[{key: getattr(server, key) for key in keys} for server in found], differences=different)


if __name__ == "__main__":
    main()
