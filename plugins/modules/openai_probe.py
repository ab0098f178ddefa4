#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: ask OpenAI-compatible endpoints as a user would."""

from __future__ import annotations

DOCUMENTATION = r"""
module: openai_probe
short_description: Ask OpenAI-compatible endpoints as a user would
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Sends streaming chat requests and reports the status, the model that answered, the number of chunks and when they came.
  - Never fails by itself on an unexpected answer; look at RV(ok).
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, description: Asks in check mode as well; a question changes nothing.}
  diff_mode: {support: none}
  platform: {platforms: posix}
options:
  probes:
    description: Questions to ask.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: What is proved., type: str, required: true}
      url: {description: Base URL of the endpoint., type: str, required: true}
      model: {description: Model to ask for., type: str, required: true}
      key: {description: API key. Empty sends none., type: str, default: ""}
      address: {description: Address to connect to; the certificate is still verified against the URL's host., type: str, default: ""}
      expect: {description: HTTP status that is right., type: int, default: 200}
      max_tokens: {description: Length of the answer in tokens., type: int, default: 16}
      protocol:
        description: An OpenAI-compatible endpoint, or the chat of an application of Dify; its model and the length of its answers are its own.
        type: str
        choices: [openai, dify]
        default: openai
  ca_file:
    description: PEM file of the authority that must have signed the servers' certificates.
    type: path
    default: /etc/ssl/certs/ca-certificates.crt
  timeout:
    description: Longest silence to bear, in seconds.
    type: float
    default: 60.0
  workers:
    description: Questions asked at the same time.
    type: int
    default: 2
"""

EXAMPLES = r"""
- name: Ask the assistant, and ask for what must be refused
  sovereign.dify.openai_probe:
    probes:
      - {name: assistant answers, url: "https://ai.edge.lab.internal", model: assistant, key: "{{ key }}"}
      - {name: restricted model is refused, url: "https://ai.edge.lab.internal", model: risk-scoring, key: "{{ key }}", expect: 404}
  register: probes
  failed_when: not probes.ok
"""

RETURN = r"""
ok:
  description: Whether every probe had the answer it wanted.
  returned: always
  type: bool
outcomes:
  description: One entry for each probe, in order.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Name of the probe., type: str}
    model: {description: Model asked for., type: str}
    expect: {description: Status wanted., type: int}
    status: {description: Status received; 0 if there was no answer., type: int}
    ok: {description: 'Status as wanted and, for 200, a complete stream that names the model.', type: bool}
    answered_by: {description: Model named in the answer., type: str}
    chunks: {description: Events received., type: int}
    first_chunk_ms: {description: Milliseconds until the first event., type: float}
    spread_ms: {description: Milliseconds between first and last event., type: float}
    total_ms: {description: Milliseconds for everything., type: float}
    error: {description: What went wrong., type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.openai_probe import Probe, ask_all


def main() -> None:
    """Read the parameters, ask, report."""
    module = AnsibleModule(
        argument_spec={
            "probes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                    "model": {"type": "str", "required": True},
                    "key": {"type": "str", "default": "", "no_log": True},
                    "address": {"type": "str", "default": ""},
                    "expect": {"type": "int", "default": 200},
                    "max_tokens": {"type": "int", "default": 16, "no_log": False},
                    "protocol": {"type": "str", "choices": ["openai", "dify"], "default": "openai"},
                },
            },
            "ca_file": {"type": "path", "default": "/etc/ssl/certs/ca-certificates.crt"},
            "timeout": {"type": "float", "default": 60.0},
            "workers": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    probes = [Probe(**probe) for probe in module.params["probes"]]
    outcomes = ask_all(probes, module.params["ca_file"], module.params["timeout"], module.params["workers"])
    module.exit_json(changed=False, ok=all(outcome["ok"] for outcome in outcomes), outcomes=outcomes)


if __name__ == "__main__":
    main()
