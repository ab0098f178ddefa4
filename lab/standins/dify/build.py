#!/usr/bin/env python3
"""Build the stand-in's images and keep them as archives in the lab's cache: ``python3 lab/standins/dify/build.py``.

Made of Debian 13's and PyPI's packages alone, by the lab's Docker and the sources that this machine's apt and pip are set to; no registry
is asked for anything. What is built is listed in `images.json` beside the archives, with what each is called and its checksum.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # run as a file, this one sees only its own directory

from lab.substrate import docker, images, venv
from lab.substrate.steps import CACHE, Step, StepError, digest, fresh_directory, run, run_steps, say

HERE = Path(__file__).resolve().parent
ARCHIVES = CACHE / "dify-standin"
STAMP = ".recipe"
LIST = "images.json"
PLUGIN = "openai_api_compatible.difypkg"
NAMESPACE = "localhost/dify-standin"
LABELS = {"org.sovereign-dify.standin": "dify", "org.opencontainers.image.description": "Stand-in for Dify in the lab; no part of Dify"}

PYTHON = "3.13"
PLATFORM = "x86_64-manylinux_2_36"
ROOTS = {
    "standin-python": ["ca-certificates", "curl", "procps", "python3"],
    "standin-squid": ["ca-certificates", "curl", "procps", "squid"],
}
# Every host of Dify unpacks each image.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
# Programs by which the packages of PyPI are called in the api's image; pip's own would name this machine's Python.
PROGRAMS = ("celery", "flask", "gunicorn")


@dataclass(frozen=True)
class Image:
    """One image to build.

    Attributes:
        name: What it is called, below the namespace.
        tag: Its version, upstream's.
        recipe: The Dockerfile in `images/`.
        release: What the file VERSION in it says.
        migrations: The releases whose migrations the api's image carries.
    """

    name: str
    tag: str
    recipe: str
    release: str
    migrations: Sequence[str] = ()

    @property
    def reference(self) -> str:
        """Return the name by which it is loaded and run."""
        return f"{NAMESPACE}/{self.name}:{self.tag}"

    @property
    def archive(self) -> str:
        """Return the name of its archive."""
        return f"{self.name}-{self.tag}.tar.gz"


IMAGES = [
    Image("dify-api", "1.16.0", "api", "1.16.0", ("1.16.0",)),
    Image("dify-api", "1.16.1", "api", "1.16.1", ("1.16.0", "1.16.1")),
    Image("dify-web", "1.16.0", "web", "1.16.0"),
    Image("dify-web", "1.16.1", "web", "1.16.1"),
    Image("dify-plugin-daemon", "0.6.3-local", "plugin_daemon", "0.6.3"),
    Image("dify-sandbox", "0.2.15", "sandbox", "0.2.15"),
    Image("squid", "6", "squid", "6"),
]


@dataclass(frozen=True)
class Archive:
    """A built image, as `images.json` lists it.

    Attributes:
        image: Its name and tag.
        id: The digest of its configuration, which is its id wherever it is loaded.
        archive: The file beside the list.
        sha256: The file's checksum.
        bytes: Its size.
    """

    image: str
    id: str
    archive: str
    sha256: str
    bytes: int


def recipe() -> str:
    """Return what the archives are made from, as a digest: they are made again when it changes."""
    files = [path for path in sorted(HERE.rglob("*")) if path.is_file() and path.suffix not in (".md", ".pyc")]
    surroundings = [images.MIRROR, images.SECURITY_MIRROR, os.environ.get("LAB_BASE_IMAGE_TRIXIE", "")]
    return digest(*(f"{path.relative_to(HERE)}\n{path.read_text()}" for path in files), *surroundings)


def prepare() -> str | None:
    """Build the images and write their archives, unless those of this recipe are there, or other images are to run."""
    if os.environ.get("LAB_DIFY_IMAGES"):
        return None
    wanted = recipe()
    if (ARCHIVES / STAMP).is_file() and (ARCHIVES / STAMP).read_text() == wanted:
        return None
    if not docker.answers():
        raise StepError("no Docker daemon answers: run 'python3 lab/prepare.py docker' first")
    for tag, packages in ROOTS.items():
        _root(tag, packages)
    with fresh_directory(ARCHIVES, STAMP) as directory:
        context = directory / "context"
        context.mkdir()
        _libraries(context / "site")
        _programs(context / "bin")
        archives = [_build(image, context, directory) for image in IMAGES]
        shutil.rmtree(context)
        plugin(directory / PLUGIN)
        (directory / LIST).write_text(json.dumps([asdict(archive) for archive in archives], indent=2) + "\n")
        (directory / STAMP).write_text(wanted)
    return f"{len(archives)} images, {sum(archive.bytes for archive in archives) / 1e6:.0f} MB, in {ARCHIVES}"


def plugin(file: Path) -> None:
    """Write the package of the plugin; its signature is one that only the stand-in's daemon takes for one."""
    with zipfile.ZipFile(file, "w") as package:
        package.comment = b'{"signature": "stand-in"}'
        for path in _files(HERE / "plugin"):
            # The time of the archive's entries is fixed, so that the plugin's checksum, which is part of its name, stays the same.
            package.writestr(zipfile.ZipInfo(str(path.relative_to(HERE / "plugin"))), path.read_bytes())


def _files(directory: Path) -> Iterator[Path]:
    yield from (path for path in sorted(directory.rglob("*")) if path.is_file())


def _root(tag: str, packages: Sequence[str]) -> None:
    """Make a root file system as an image, by mmdebstrap or from the registry's Debian that the lab was given."""
    source = os.environ.get("LAB_BASE_IMAGE_TRIXIE", "")
    wanted = digest(source, images.MIRROR, images.SECURITY_MIRROR, *packages, *LEFT_OUT)
    if images.recipe_of(tag) == wanted:
        return
    say(f"{tag}: Debian 13 with {', '.join(packages)}")
    name = f"{images.REPOSITORY}:{tag}"
    label = f"{images.RECIPE_LABEL}={wanted}"
    if source:
        _root_from_image(source, name, label, packages)
        return
    tar = CACHE / f"{tag}.tar"
    try:
        options = [
            "--variant=minbase",
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        ]
        run(
            [
                "mmdebstrap",
                *options,
                "--aptopt=APT::Install-Recommends false",
                f"--include={','.join(packages)}",
                "trixie",
                tar,
                *images.source_lines("trixie"),
            ]
        )
        run(["docker", "import", "--change", f"LABEL {label}", "--change", "CMD /bin/bash", tar, name])
    finally:
        tar.unlink(missing_ok=True)


def _root_from_image(source: str, name: str, label: str, packages: Sequence[str]) -> None:
    lines = "".join(f"{line}\\n" for line in images.source_lines("trixie"))
    install = f"apt-get install -q -y --no-install-recommends {' '.join(packages)}"
    recipe_lines = [
        f"FROM {source}",
        f"RUN rm -f /etc/apt/sources.list.d/* && printf '{lines}' > /etc/apt/sources.list && apt-get update -q && {install}",
    ]
    proxies = [word for name in images.PROXY_VARIABLES if os.environ.get(name) for word in ("--build-arg", name)]
    run(["docker", "build", "--tag", name, "--label", label, *proxies, "-"], stdin="\n".join(recipe_lines) + "\n")


def _libraries(site: Path) -> None:
    """Put the locked packages of PyPI into a directory, for the images' Python whatever this machine's is."""
    say("downloading the packages of requirements.txt")
    target = ["--target", str(site), "--python-version", PYTHON, "--python-platform", PLATFORM, "--only-binary", ":all:"]
    locked = ["--require-hashes", "-r", str(HERE / "requirements.txt")]
    run([venv.python().parent / "uv", "pip", "install", "-q", *target, *locked], env=venv.uv_environment())
    shutil.rmtree(site / "bin", ignore_errors=True)


def _programs(directory: Path) -> None:
    directory.mkdir()
    for name in PROGRAMS:
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec python3 -m {name} "$@"\n')
        program.chmod(0o755)


def _build(image: Image, context: Path, directory: Path) -> Archive:
    """Build one image and write its archive."""
    say(f"building {image.reference}")
    for part in ("api", "plugin_daemon", "web", "sandbox", "ssrf_proxy"):
        shutil.rmtree(context / part, ignore_errors=True)
        shutil.copytree(HERE / part, context / part, ignore=shutil.ignore_patterns("__pycache__"))
        (context / part / "VERSION").write_text(f"{image.release}\n")
    for migration in (context / "api" / "migrations" / "versions").iterdir():
        if migration.stem.removeprefix("release_").replace("_", ".") not in image.migrations:
            migration.unlink()
    labels = [word for name, value in LABELS.items() for word in ("--label", f"{name}={value}")]
    run(["docker", "build", "--quiet", "--tag", image.reference, *labels, "--file", HERE / "images" / f"{image.recipe}.Dockerfile", context])
    image_id = run(["docker", "image", "inspect", "--format", "{{.Id}}", image.reference]).strip()
    tar, file = directory / "image.tar", directory / image.archive
    run(["docker", "save", "--output", tar, image.reference])
    # Level 1: a quarter of the time of level 6, for a tenth more space; without a time, for the checksum's sake.
    with tar.open("rb") as source, file.open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    tar.unlink()
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Archive(image.reference, image_id, image.archive, sha256, file.stat().st_size)


def built(directory: Path = ARCHIVES) -> Mapping[str, Archive]:
    """Return what is built, by the images' names; nothing where nothing is."""
    file = directory / LIST
    found = [Archive(**entry) for entry in json.loads(file.read_text())] if file.is_file() else []
    return {archive.image: archive for archive in found}


if __name__ == "__main__":
    sys.exit(run_steps({"dify-standin": Step("the stand-ins for Dify's images, as archives", prepare)}))
