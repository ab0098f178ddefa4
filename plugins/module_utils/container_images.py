# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Container images in podman's store: pulled by digest, or loaded from archives whose checksum is known.

An image that comes from an archive has no digest of a registry. It is tagged with its archive's checksum, so that the tag says what was loaded
and cannot come to mean something else by another run. Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

Run = Callable[[list[str]], "tuple[int, str, str]"]
"""Runs a command and gives its exit code, what it printed, and what it complained of."""

BLOCK = 1 << 20
MEGABYTE = 1_000_000
GZIP = b"\x1f\x8b"
OVERHEAD = 1.1
"""What files take on a disk in blocks, against what they hold."""
COMPRESSION = 4
"""How much smaller an archive is at most that tells nothing of its unpacked size (xz, zstd, bzip2)."""
SCRATCH = Path("/var/tmp")  # noqa: S108 - where podman unpacks
"""Where podman keeps what it unpacks or has fetched of one image, until that image is in its store."""


class ImageError(Exception):
    """An image that did not come."""


@dataclass(frozen=True)
class Image:
    """An image that shall be there.

    Attributes:
        reference: What units call it: a name with a digest, or a local name that bears the archive's checksum.
        archive: Path on this host of the archive it is loaded from; empty where it is pulled.
        sha256: Digest of that archive, in hexadecimal digits.
        packed: Bytes that come: of the archive, or of compressed layers; 0 if nothing is known.
        unpacked: Bytes of its files; 0 if nothing is known.
    """

    reference: str
    archive: str = ""
    sha256: str = ""
    packed: int = 0
    unpacked: int = 0

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


def shortages(images: Iterable[Image], storage: Path, free: Callable[[Path], tuple[int, int]] | None = None) -> list[str]:
    """Compare free space with what images take that are to come.

    Args:
        images: Those that are missing. An archive that lies on this host already is not counted again.
        storage: Where podman keeps images.
        free: Gives the device of a directory that exists, and the bytes that are free there.

    Returns:
        A sentence for each file system without the room, with what to do.
    """
    images = list(images)
    wanted = [(storage, int(sum(image.unpacked for image in images) * OVERHEAD))]
    wanted += [(Path(image.archive).parent, image.packed) for image in images if image.archive and not Path(image.archive).exists()]
    wanted.append((SCRATCH, max((image.unpacked if image.archive else image.packed for image in images), default=0)))
    room: dict[int, int] = {}
    needed: dict[int, dict[Path, int]] = {}
    for name, count in wanted:
        device, left = (free or _free)(next(path for path in (name, *name.parents) if path.is_dir()))
        room[device] = left
        of = needed.setdefault(device, {})
        of[name] = of.get(name, 0) + count
    found = []
    for device, of in needed.items():
        total = sum(of.values())
        if total > room[device]:
            parts = ", ".join(f"{name} {_megabytes(count)} MB" for name, count in of.items() if count)
            found.append(
                f"Images that are missing ({len(images)}) want {_megabytes(total)} MB ({parts}), and {room[device] // MEGABYTE} MB are free. Make "
                f"room (`df -h {next(iter(of))}`, `podman image prune --all`), or give it a larger file system."
            )
    return found


def _free(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, shutil.disk_usage(path).free


def _megabytes(count: int) -> int:
    return -(-count // MEGABYTE)


def archive_size(path: Path) -> tuple[int, int]:
    """Tell how large an archive of an image is, and its files, reading little of it.

    gzip says in its last bytes how much it holds (modulo 4 GiB), a tar where its members are. Of other kinds of compression much is assumed.

    Returns:
        Bytes of the archive, and of the files of its layers.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        if stream.read(2) == GZIP:
            return size, _gunzipped(stream.seek, stream.read, 0, size)
        stream.seek(0)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                unpacked = 0
                for member in archive:
                    if not member.isfile():
                        continue
                    stream.seek(member.offset_data)
                    packed = stream.read(2) == GZIP
                    unpacked += _gunzipped(stream.seek, stream.read, member.offset_data, member.size) if packed else member.size
                return size, unpacked
        except tarfile.ReadError:
            return size, size * COMPRESSION


def _gunzipped(seek: Callable[[int], int], read: Callable[[int], bytes], start: int, size: int) -> int:
    """Read how many bytes a gzip of some size holds; of several that are possible, the least that is not less than it."""
    seek(start + size - 4)
    held = int.from_bytes(read(4), "little")
    return held + max(0, -(-(size - held) // (1 << 32))) * (1 << 32)


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
