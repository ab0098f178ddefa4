# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Container images in podman's store: pulled by digest, or loaded from archives whose checksum is known.

An image that comes from an archive has no digest of a registry. It is tagged with its archive's checksum, so that the tag says what was loaded
and cannot come to mean something else by another run. Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

Run = Callable[[list[str]], "tuple[int, str, str]"]
"""Runs a command and gives its exit code, what it printed, and what it complained of."""

BLOCK = 1 << 20


class ImageError(Exception):
    """An image that did not come."""


@dataclass(frozen=True)
class Image:
    """An image that shall be there.

    Attributes:
        reference: What units call it: a name with a digest, or a local name that bears the archive's checksum.
        archive: Path on this host of the archive it is loaded from; empty where it is pulled.
        sha256: Digest of that archive, in hexadecimal digits.
    """

    reference: str
    archive: str = ""
    sha256: str = ""

    def faults(self) -> list[str]:
        """Tell what would let another image than the declared one run."""
        if "@" not in self.reference and not self.sha256:
            return [f"{self.reference}: neither a digest nor an archive with a checksum says which image it is"]
        if "@" in self.reference and not re.search(r"@sha256:[0-9a-f]{64}$", self.reference):
            return [f"{self.reference}: a digest is sha256: and 64 hexadecimal digits"]
        if self.sha256 and self.sha256 not in self.reference:
            return [f"{self.reference}: its tag does not bear the archive's checksum"]
        return []


@dataclass(frozen=True)
class Store:
    """Podman's images.

    Attributes:
        run: Runs a command.
        authfile: File with the credentials of registries; empty for none.
    """

    run: Run
    authfile: str = ""

    def missing(self, images: Iterable[Image]) -> list[Image]:
        """Tell which images are not there, each once.

        Raises:
            ImageError: Podman itself fails.
        """
        found = []
        for image in dict.fromkeys(images):
            code, dummy, complaint = self.run(["podman", "image", "exists", image.reference])
            if code > 1:
                raise ImageError(f"podman cannot read its images: {complaint.strip()}")
            if code == 1:
                found.append(image)
        return found

    def fetch(self, image: Image) -> None:
        """Pull or load an image.

        Raises:
            ImageError: It did not come, or is not the declared one; says what to do.
        """
        if image.archive:
            self._load(image)
        else:
            self._pull(image)
        if self.missing([image]):
            raise ImageError(f"{image.reference}: podman reports that it came, but does not have it")

    def _pull(self, image: Image) -> None:
        credentials = ["--authfile", self.authfile] if self.authfile else []
        code, dummy, complaint = self.run(["podman", "pull", "--quiet", *credentials, image.reference])
        if code:
            raise ImageError(f"{image.reference}: {_last(complaint)}\nIs the registry, or the site's `images.mirror`, reachable from this host?")

    def _load(self, image: Image) -> None:
        try:
            found = checksum(Path(image.archive))
        except OSError as error:
            raise ImageError(f"{image.archive}: {error.strerror}") from error
        if found != image.sha256:
            raise ImageError(f"{image.archive}: its SHA-256 is {found}, not {image.sha256}; is it the archive that cluster.yml declares, and whole?")
        code, printed, complaint = self.run(["podman", "load", "--quiet", "--input", image.archive])
        if code:
            raise ImageError(f"{image.archive}: {_last(complaint)}")
        loaded = [name.strip() for line in printed.splitlines() if line.startswith("Loaded image") for name in line.split(":", 1)[1].split(",")]
        if len(loaded) != 1:
            raise ImageError(f"{image.archive}: holds {len(loaded)} images ({', '.join(loaded)}); save each to an archive of its own")
        code, dummy, complaint = self.run(["podman", "tag", loaded[0], image.reference])
        if code:
            raise ImageError(f"{image.archive}: {_last(complaint)}")


def checksum(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _last(complaint: str) -> str:
    """Give the line in which podman says why."""
    lines = [line for line in complaint.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "failed without a word"
