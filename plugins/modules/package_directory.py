#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: a directory of packages, as a source of apt."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_directory
short_description: Have apt install from a directory of packages
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - For hosts that reach no repository. Checks a directory of packages against its manifest, C(SHA256SUMS), and that against its declared checksum,
    and writes the index that apt reads. The directory itself is not written to; it may be read-only.
  - The source of apt is then C(deb [trusted=yes] file:<index> ./). What is in it is known by the checksum that is declared; apt compares once more
    what it installs.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: debian}
options:
  path:
    description: Directory on the host with the packages and C(SHA256SUMS).
    type: path
    required: true
  sha256:
    description: SHA-256 of C(SHA256SUMS).
    type: str
    required: true
  index:
    description: Directory for the index.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Have apt install the driver from what was brought in
  sovereign.dify.package_directory:
    path: /srv/nvidia
    sha256: "{{ nvidia_driver_directory_sha256 }}"
    index: /var/lib/sovereign/nvidia
"""

RETURN = r"""
packages: {description: Names of the files., returned: success, type: list, elements: str}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.package_directory import LINK, STAMP, DirectoryError, entries, index


def main() -> None:
    """Check, and write the index where it is not that of the manifest."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "index": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    source, target, sha256 = Path(module.params["path"]), Path(module.params["index"]), module.params["sha256"]

    def describe(path: Path) -> str:
        return str(module.run_command(["dpkg-deb", "--field", str(path)], check_rc=True)[1])

    try:
        found = entries(source, sha256)
        link, stamp = target / LINK, target / STAMP
        current = stamp.is_file() and stamp.read_text() == sha256 and link.is_symlink() and link.readlink() == source
        if not current:
            text = index(found, describe)
            if not module.check_mode:
                target.mkdir(parents=True, exist_ok=True)
                stamp.unlink(missing_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(source)
                (target / "Packages").write_text(text)
                stamp.write_text(sha256)
    except (DirectoryError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=not current, packages=[package.path.name for package in found])


if __name__ == "__main__":
    main()
