# Ansible managed
"""Refuse a swift.conf under which the data of this host could no longer be found: objects lie where a hash with these two secrets says."""

from __future__ import annotations

import sys
from configparser import ConfigParser
from pathlib import Path

OPTIONS = ("swift_hash_path_prefix", "swift_hash_path_suffix")
SWIFT = Path("/etc/swift")


def secrets(path: Path) -> list[str]:
    """Read the two secrets."""
    parser = ConfigParser(interpolation=None)
    parser.read(path)
    return [parser.get("swift-hash", option, fallback="") for option in OPTIONS]


if __name__ == "__main__":
    # Before there is a ring, nothing has been stored; the package brings a file with words of its own.
    if (SWIFT / "object.ring.gz").exists() and secrets(SWIFT / "swift.conf") != secrets(Path(sys.argv[1])):
        sys.exit(
            "object_storage_hash_prefix or object_storage_hash_suffix is not what this host's objects were stored with: none of them would be found. "
            "Bring the former ones back; the host still has them in /etc/swift/swift.conf."
        )
