#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: a chat application of Dify, and a key of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_application
short_description: A chat application of Dify, and a key that it is asked with
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Makes a chat application where there is none of the name, with a model and a key, through the console's API. Gives the key.
  - Changes nothing of one that is there. Its prompt and its model are for people to change.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
options:
  url:
    description: An api of Dify, without a path.
    type: str
    required: true
  email:
    description: Address of an account that may make applications.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  name:
    description: Name of the application.
    type: str
    required: true
  provider:
    description: Provider of its model.
    type: str
    default: langgenius/openai_api_compatible/openai_api_compatible
  model:
    description: Its model.
    type: str
    required: true
  max_tokens:
    description: Longest answer, in tokens.
    type: int
    default: 512
  timeout:
    description: Longest that an answer of the console may take, in seconds.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Have an application that tells whether Dify answers
  sovereign.dify.dify_application:
    url: http://127.0.0.1:5001
    email: platform@bank.example
    password: "{{ lookup('sovereign.dify.secret', 'dify/admin_password', prefix='pw1-') }}"
    name: Smoke test
    model: assistant
  register: application
"""

RETURN = r"""
made: {description: 'What was made, or would have been.', returned: success, type: list, elements: str, sample: [application, key]}
key: {description: Its key; empty if check mode has made none., returned: success, type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.dify_console import Application, Console, ConsoleError


def main() -> None:
    """Look, make, report."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "email": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "name": {"type": "str", "required": True},
            "provider": {"type": "str", "default": "langgenius/openai_api_compatible/openai_api_compatible"},
            "model": {"type": "str", "required": True},
            "max_tokens": {"type": "int", "default": 512, "no_log": False},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    console = Console(given["url"], given["timeout"])
    application = Application(given["name"], given["provider"], given["model"], given["max_tokens"])
    try:
        console.log_in(given["email"], given["password"])
        made, key = application.ensure(console, dry=module.check_mode)
    except ConsoleError as error:
        module.fail_json(msg=f"The application '{given['name']}' of Dify: {error}")
    after = "".join(f"{what} of '{given['name']}'\n" for what in made)
    module.exit_json(changed=bool(made), made=made, key=key, diff={"before": "", "after": after})


if __name__ == "__main__":
    main()
