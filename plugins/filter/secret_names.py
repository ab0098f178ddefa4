# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: which settings hold a secret."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret_names
short_description: Which settings hold a secret
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Lists the settings whose value is, or holds, one of the secrets, by itself or quoted as within a URL; and those that are called as secrets are,
    such as C(SMTP_PASSWORD), whose values only the operator knows. A setting without a value holds none.
  - A secret of fewer than eight characters could stand in any word, and is looked for as a whole value alone.
positional: secrets
options:
  _input: {description: Values by setting., type: dict, required: true}
  secrets: {description: What must not be seen., type: list, elements: str, required: true}
"""

EXAMPLES = r"""
- name: Show what podman gets as secrets
  ansible.builtin.debug:
    msg: "{{ {'MODE': 'api', 'BROKER_URL': 'amqp://dify:p%2Fw@broker/dify'} | sovereign.dify.secret_names(['p/w']) }}"
"""

RETURN = r"""
_value: {description: 'Names of the settings, in order.', type: list, elements: str}
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

CALLED = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|ACCESS_KEY|PRIVATE_KEY|_DSN$|CREDENTIAL")
"""What settings are called whose values are nobody's business."""
SHORTEST = 8
"""Characters from which on a secret is looked for within other values."""


def secret_names(settings: Mapping[str, Any], secrets: Iterable[str]) -> list[str]:
    """List the settings that hold a secret.

    Args:
        settings: Values by setting.
        secrets: What must not be seen.
    """
    forms = {form for secret in map(str, secrets) if secret for form in (secret, quote(secret), quote(secret, safe=""))}

    def holds(value: str) -> bool:
        return value in forms or any(form in value for form in forms if len(form) >= SHORTEST)

    return sorted(name for name, value in settings.items() if str(value) and (CALLED.search(name) or holds(str(value))))


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"secret_names": secret_names}
