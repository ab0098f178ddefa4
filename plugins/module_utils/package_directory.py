# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory of packages that apt installs from, where no repository can be reached.

Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "SHA256SUMS"
STAMP = "manifest.sha256"
"""Says beside the index of which manifest it is: by that a rerun knows it without reading gigabytes; apt compares once more what it installs."""
LINK = "packages"
"""What the index calls the directory: it is a link beside the index, since the directory itself may not be writable."""

Describe = Callable[[Path], str]
"""Returns the control fields of a package."""


class DirectoryError(Exception):
    """The directory is not what is declared; the message says which file, and what to do."""


@dataclass(frozen=True)
class Entry:
    """A package of the directory.

    Attributes:
        path: Where it lies.
        sha256: Its checksum, of the manifest.
    """

    path: Path
    sha256: str


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def entries(directory: Path, manifest_sha256: str) -> list[Entry]:
    """List the packages that the manifest names; DirectoryError where it is not the declared one, or a package is missing or not named."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise DirectoryError(f"{manifest} is missing: write it where the packages come from (sha256sum *.deb > {MANIFEST}) and bring it along")
    if (found := checksum(manifest)) != manifest_sha256.lower():
        raise DirectoryError(
            f"{manifest}: its SHA-256 is {found}, and {manifest_sha256 or 'none'} is declared. Compare it with that of the original."
        )
    named = {}
    for line in manifest.read_text().splitlines():
        if match := re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(\S+\.deb)", line):
            named[match[2]] = match[1]
    there = {path.name for path in directory.glob("*.deb")}
    if missing := sorted(set(named) - there):
        raise DirectoryError(f"{manifest} names what is not there: {', '.join(missing)}")
    if stray := sorted(there - set(named)):
        raise DirectoryError(f"{manifest} does not name what is there: {', '.join(stray)}. Take it away, or have it in the manifest.")
    return [Entry(directory / name, sha256) for name, sha256 in sorted(named.items())]


def index(packages: list[Entry], describe: Describe) -> str:
    """Write apt's index of packages; DirectoryError where a package is not what the manifest says."""
    stanzas = []
    for package in packages:
        if (found := checksum(package.path)) != package.sha256:
            raise DirectoryError(f"{package.path}: its SHA-256 is {found}, and {MANIFEST} says {package.sha256}: bring it again")
        fields = describe(package.path).strip()
        size = package.path.stat().st_size
        stanzas.append(f"{fields}\nFilename: ./{LINK}/{package.path.name}\nSize: {size}\nSHA256: {package.sha256}\n")
    return "\n".join(stanzas)
