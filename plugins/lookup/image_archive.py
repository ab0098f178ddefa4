# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup: how much room an archive of a container image takes, packed and unpacked."""

from __future__ import annotations

DOCUMENTATION = r"""
name: image_archive
short_description: How much room an archive of a container image takes, packed and unpacked
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads from an archive on the controller how many bytes it has, and how many the files of its layers have. Little of it is read.
  - Exact for a tar, also with compressed layers, and for one in gzip; of other kinds of compression four times its size is assumed.
options:
  _terms: {description: Paths of archives., required: true, type: list, elements: path}
"""

EXAMPLES = r"""
- name: Show what an archive takes
  ansible.builtin.debug:
    msg: "{{ lookup('sovereign.dify.image_archive', '/srv/dify/api.tar.gz').unpacked }}"
"""

RETURN = r"""
_raw:
  description: Of each archive C(packed) and C(unpacked), in bytes.
  type: list
  elements: dict
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.sovereign.dify.plugins.module_utils.container_images import archive_size


class LookupModule(LookupBase):
    """Reads sizes."""

    def run(self, terms: Sequence[str], variables: Mapping[str, Any] | None = None, **kwargs: object) -> list[dict[str, int]]:
        """Read the size of each archive.

        Raises:
            AnsibleLookupError: one cannot be read.
        """
        self.set_options(var_options=variables, direct=kwargs)  # type: ignore[no-untyped-call]
        found = []
        for path in terms:
            try:
                packed, unpacked = archive_size(Path(path))
            except OSError as error:
                msg = f"{path}: {error.strerror}"
                raise AnsibleLookupError(msg) from error
            found.append({"packed": packed, "unpacked": unpacked})
        return found
