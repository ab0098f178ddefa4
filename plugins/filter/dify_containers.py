# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: the containers of Dify on one host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: dify_containers
short_description: The containers of Dify on one host
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Computes which containers a host runs, and the environment of each, from what is known of the site.
  - Refuses settings that the release does not know or that would spring a known trap, secrets that everybody knows, and worker pools that leave a
    queue to nobody or to two. All faults are told at once.
positional: host, images, settings
options:
  _input: {description: 'The site, as C(Site) in C(module_utils/dify_settings.py) has it.', type: dict, required: true}
  host: {description: 'The host, as C(Host) in C(module_utils/dify_containers.py) has it.', type: dict, required: true}
  images: {description: 'Reference of each image, by digest or checksum.', type: dict, required: true}
  settings: {description: 'Settings of Dify by service, and C(common) to all that the image of the api runs.', type: dict, required: true}
"""

EXAMPLES = r"""
- name: Show which containers this host runs
  ansible.builtin.debug:
    msg: "{{ __dify_site | sovereign.dify.dify_containers(__dify_host, __dify_images, dify_settings) | map(attribute='name') }}"
"""

RETURN = r"""
_value:
  description: The containers, each with C(name), C(service), C(image), C(environment), C(command), C(port), C(health) and what it is given.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.module_utils.dify_containers import containers
from ansible_collections.sovereign.dify.plugins.module_utils.dify_settings import SettingsError


def dify_containers(
    site: Mapping[str, Any], host: Mapping[str, Any], images: Mapping[str, str], settings: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """List the containers of a host.

    Raises:
        AnsibleFilterError: With everything that is wrong.
    """
    try:
        return containers(site, host, images, settings)
    except SettingsError as error:
        raise AnsibleFilterError(f"Dify cannot be run so:\n{error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"dify_containers": dify_containers}
