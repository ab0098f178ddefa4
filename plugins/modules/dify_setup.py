#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: the first account of Dify, its workspace, and the models that it has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_setup
short_description: Set Dify up, and register models with it
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Makes the first account where there is none, names its workspace, installs the plugin of a model provider and registers models with it, through
    the console's API. A fresh platform then answers a chat without a click.
  - Changes what differs, and nothing that is not named. Dify shows only the ends of an API key; they are compared.
  - Dify tries a model before it registers it. The model must answer.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, details: Without an account nobody can log in to look further; all that is wanted is then reported.}
  diff_mode: {support: full}
  platform: {platforms: posix}
options:
  url:
    description: An api of Dify, without a path.
    type: str
    required: true
  account:
    description: The first account.
    type: dict
    required: true
    suboptions:
      email: {description: Address that it logs in by., type: str, required: true}
      name: {description: Name that is shown., type: str, required: true}
      password: {description: "Password, with letters and digits and of eight characters at least.", type: str, required: true}
      language: {description: Language of its pages., type: str, default: en-US}
  init_password:
    description: What guards the set-up (C(INIT_PASSWORD)).
    type: str
  workspace:
    description: Name of the workspace. Dify's own, if empty.
    type: str
    default: ""
  provider:
    description: Provider of the models, C(<author>/<plugin>/<provider>). None is looked for if empty.
    type: str
    default: langgenius/openai_api_compatible/openai_api_compatible
  package:
    description: File on the host with the provider's plugin (C(.difypkg)). It must be installed already, if not given.
    type: path
  endpoint:
    description: Where the models answer, an OpenAI-compatible endpoint with its path.
    type: str
    default: ""
  api_key:
    description: Key that they are asked with.
    type: str
  models:
    description: The models.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name that the endpoint knows it by., type: str, required: true}
      context_size: {description: Tokens of question and answer together., type: int, default: 4096}
  default_model:
    description: Model that applications use unless told otherwise. One that somebody has chosen is kept.
    type: str
    default: ""
  timeout:
    description: Longest that an answer may take, in seconds.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Set Dify up
  sovereign.dify.dify_setup:
    url: http://127.0.0.1:5001
    account:
      email: platform@bank.example
      name: Platform
      password: "{{ lookup('sovereign.dify.secret', 'dify/admin_password', prefix='pw1-') }}"
    init_password: "{{ lookup('sovereign.dify.secret', 'dify/init_password', length=30) }}"
    package: /var/lib/dify/plugins/openai_api_compatible.difypkg
    endpoint: http://127.0.0.1:5004/v1
    api_key: "{{ lookup('sovereign.dify.secret', 'model_gateway/dify') }}"
    models: [{name: assistant, context_size: 32768}]
    default_model: assistant
"""

RETURN = r"""
changes:
  description: What was changed, or would have been, by what it is about.
  returned: success
  type: dict
  sample: {account: platform@bank.example}
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.dify_console import Console, ConsoleError, Setup, wanted_from


def main() -> None:
    """Look, set up, report."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "account": {
                "type": "dict",
                "required": True,
                "options": {
                    "email": {"type": "str", "required": True},
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "language": {"type": "str", "default": "en-US"},
                },
            },
            "init_password": {"type": "str", "no_log": True},
            "workspace": {"type": "str", "default": ""},
            "provider": {"type": "str", "default": "langgenius/openai_api_compatible/openai_api_compatible"},
            "package": {"type": "path"},
            "endpoint": {"type": "str", "default": ""},
            "api_key": {"type": "str", "no_log": True},
            "models": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "context_size": {"type": "int", "default": 4096}},
            },
            "default_model": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    setup = Setup(Console(module.params["url"], module.params["timeout"]), wanted_from(module.params), dry=module.check_mode)
    try:
        changed = setup.run()
    except ConsoleError as error:
        module.fail_json(msg=f"Dify is not set up: {error}", changes=setup.after)
    shown = {
        side: json.dumps(values, indent=2, sort_keys=True) + "\n" if values else ""
        for side, values in (("before", setup.before), ("after", setup.after))
    }
    module.exit_json(changed=changed, changes=setup.after, diff=shown)


if __name__ == "__main__":
    main()
