#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: container images that shall be on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_images
short_description: Container images that shall be on a host, all in one call
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Pulls images by digest, and loads others from archives on the host whose checksum it verifies first.
  - What was loaded gets a tag that bears the checksum, so that a second run finds it without reading the archive, which need not be there any more.
  - Nothing is removed.
  - M(containers.podman.podman_load) loads one image a call, each time, whatever it is; M(containers.podman.podman_image) pulls one a call.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full, details: "Where podman is not installed yet, all images are taken for missing."}
  diff_mode: {support: full}
  platform: {platforms: posix}
requirements: [podman]
options:
  images:
    description: Images that shall be there.
    type: list
    elements: dict
    required: true
    suboptions:
      reference:
        description: What units call it, a name with a digest (C(name@sha256:...)), or where it is loaded a local one with the archive's checksum.
        type: str
        required: true
      archive: {description: Path on the host of the archive to load it from., type: path}
      sha256: {description: SHA-256 of that archive., type: str}
      packed: {description: Bytes of the archive or of what is pulled; 0 if nothing is known., type: int, default: 0}
      unpacked: {description: Bytes of the image's files; 0 if nothing is known., type: int, default: 0}
  storage:
    description:
      - Where podman keeps images. If given, fails before anything comes if there is no room for what is missing, in check mode too.
      - Counted are what is kept there, archives that are still to be brought, and what podman unpacks in C(/var/tmp) of one image at a time.
    type: path
  authfile:
    description: File on the host with the credentials of registries.
    type: path
"""

EXAMPLES = r"""
- name: Have the images on the host
  sovereign.dify.container_images:
    images:
      - reference: docker.io/langgenius/dify-api@sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
      - reference: localhost/squid:sha256-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        archive: /var/lib/sovereign/images/squid.tar
        sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        packed: 64577084
        unpacked: 179531264
    storage: /var/lib/containers/storage
"""

RETURN = r"""
missing: {description: References of those that were not there., returned: always, type: list, elements: str}
shortages: {description: File systems without the room for them., returned: if podman can be asked, type: list, elements: str}
"""

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.container_images import Image, ImageError, Store, shortages


def main() -> None:
    """Look, fetch, report."""
    options = {
        "reference": {"type": "str", "required": True},
        "archive": {"type": "path"},
        "sha256": {"type": "str"},
        "packed": {"type": "int", "default": 0},
        "unpacked": {"type": "int", "default": 0},
    }
    module = AnsibleModule(
        argument_spec={
            "images": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": options,
                "required_by": {"archive": ["sha256"]},
            },
            "storage": {"type": "path"},
            "authfile": {"type": "path"},
        },
        supports_check_mode=True,
    )

    def run(command: list[str]) -> tuple[int, str, str]:
        code, printed, complaint = module.run_command(command)
        return int(code), str(printed), str(complaint)

    images = [
        Image(item["reference"], item["archive"] or "", item["sha256"] or "", item["packed"], item["unpacked"]) for item in module.params["images"]
    ]
    if faults := [fault for image in images for fault in image.faults()]:
        module.fail_json(msg="; ".join(faults), missing=[])
    store = Store(run, module.params["authfile"] or "")
    try:
        missing = list(dict.fromkeys(images)) if module.check_mode and not shutil.which("podman") else store.missing(images)
        names = [image.reference for image in missing]
        short = shortages(missing, Path(module.params["storage"])) if module.params["storage"] else []
        if short:
            module.fail_json(msg="\n".join(short), missing=names, shortages=short)
        if not module.check_mode:
            for image in missing:
                store.fetch(image)
    except ImageError as error:
        module.fail_json(msg=str(error), missing=[])
    module.exit_json(changed=bool(missing), missing=names, shortages=[], diff={"before": "", "after": "".join(f"{name}\n" for name in names)})


if __name__ == "__main__":
    main()
