#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: the rings of an object storage on one of its members."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swift_ring
short_description: Put the rings of an object storage in place
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Writes rings and the files that they are made from where they differ. Servers notice new rings by themselves, within seconds.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full, description: Digests of the files.}
  platform: {platforms: debian}
options:
  rings:
    description: By kind C(builder) and C(ring), as M(sovereign.dify.swift_ring_plan) gives them.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Put the rings in place
  sovereign.dify.swift_ring:
    rings: "{{ __plan.rings }}"
"""

RETURN = r"""
changed_files: {description: Files that were not as wanted., returned: always, type: list, elements: str}
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.swift_ring import unpack


def write(path: Path, content: bytes) -> None:
    """Put a file in place at one stroke."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(draft).chmod(0o644)
    Path(draft).replace(path)


def main() -> None:
    """Compare, write, report."""
    module = AnsibleModule(argument_spec={"rings": {"type": "dict", "required": True}}, supports_check_mode=True)
    directory = Path("/etc/swift")
    changed: list[str] = []
    lines: dict[str, list[str]] = {"before": [], "after": []}
    rings: dict[str, dict[str, Any]] = module.params["rings"]
    for kind, saved in rings.items():
        # The ring last: it is what servers look at.
        for name, path in (("builder", directory / f"{kind}.builder"), ("ring", directory / f"{kind}.ring.gz")):
            content = unpack(saved[name])
            present = path.read_bytes() if path.exists() else b""
            if content == present:
                continue
            changed.append(str(path))
            for when, data in (("before", present), ("after", content)):
                lines[when].append(f"{path} {hashlib.sha256(data).hexdigest() if data else 'absent'}\n")
            if not module.check_mode:
                write(path, content)
    module.exit_json(changed=bool(changed), changed_files=changed, diff={when: "".join(text) for when, text in lines.items()})


if __name__ == "__main__":
    main()
