#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: what the rings of an object storage shall be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swift_ring_plan
short_description: Work out what the rings of an object storage shall be
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Takes the newest rings that any member has, and changes them where members declare other devices. Where nothing is declared anew, they stay as
    they are, to the last byte.
  - New rings are made only when all members say that they have none. A member that was installed anew gets those of the others.
  - Refuses what would lose data, such as a device that vanishes from the declarations while it holds some.
  - Writes nothing; M(sovereign.dify.swift_ring) does.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: debian}
options:
  reports:
    description: What M(sovereign.dify.swift_ring_info) has told of each member that answers.
    type: list
    elements: dict
    required: true
  members:
    description: Addresses of all members, as the rings have them.
    type: list
    elements: str
    required: true
  ports:
    description: Ports of the servers C(account), C(container) and C(object).
    type: dict
    required: true
  replicas:
    description: Copies of each object.
    type: int
    required: true
  part_power:
    description: Into how many parts new rings divide the data, as a power of two.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Plan the rings
  sovereign.dify.swift_ring_plan:
    reports: "{{ __reports.results | map(attribute='report') }}"
    members: [127.1.1.11, 127.1.1.12, 127.1.1.13]
    ports: {account: 6202, container: 6201, object: 6200}
    replicas: 3
    part_power: 12
  register: __plan
"""

RETURN = r"""
rings:
  description: By kind the C(builder) and the C(ring), in base64.
  returned: always
  type: dict
changes: {description: What differs from what the members have., returned: always, type: list, elements: str}
"""

import os
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.swift_ring import Builder, Library, RingError, plan


def library() -> Library:
    """Give ways to Swift's library, which works on files.

    Raises:
        ImportError: it is not installed.
    """
    from swift.common.ring import RingBuilder

    directory = Path(tempfile.mkdtemp(prefix="rings-"))
    os.chdir(directory)
    file = directory / "builder"

    def load(data: bytes) -> Builder:
        file.write_bytes(data)
        builder: Builder = RingBuilder.load(str(file))
        file.unlink()
        return builder

    def create(part_power: int, replicas: int, hours: int) -> Builder:
        builder: Builder = RingBuilder(part_power, replicas, hours)
        return builder

    def save(kind: str, builder: Builder) -> tuple[bytes, bytes]:
        ring = directory / f"{kind}.ring.gz"
        builder.save(str(file))  # type: ignore[attr-defined]
        builder.get_ring().save(str(ring))  # type: ignore[attr-defined]
        saved = file.read_bytes(), ring.read_bytes()
        file.unlink()
        ring.unlink()
        return saved

    return Library(load, create, save)


def main() -> None:
    """Plan, report."""
    module = AnsibleModule(
        argument_spec={
            "reports": {"type": "list", "elements": "dict", "required": True},
            "members": {"type": "list", "elements": "str", "required": True},
            "ports": {"type": "dict", "required": True},
            "replicas": {"type": "int", "required": True},
            "part_power": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode and len([told for told in params["reports"] if told["ip"]]) < len(params["members"]):
        module.exit_json(changed=True, rings={}, changes=["members do not yet say what they have"])
    try:
        ways = library()
    except ImportError as error:
        module.fail_json(msg=f"Swift's library is not there: {error}")
    ports = {kind: int(port) for kind, port in params["ports"].items()}
    try:
        result = plan(params["reports"], params["members"], ports, params["replicas"], params["part_power"], ways)
    except RingError as error:
        module.fail_json(msg=f"{str(error)[0].upper()}{str(error)[1:]}.")
    finally:
        os.chdir("/")
    for note in result.notes:
        if "still has" in note:
            module.warn(note)
    text = "".join(f"{line}\n" for line in result.changes)
    module.exit_json(changed=bool(result.changes), rings=result.rings, changes=result.changes, notes=result.notes, diff={"before": "", "after": text})


if __name__ == "__main__":
    main()
