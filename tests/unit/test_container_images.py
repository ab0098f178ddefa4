"""Images come by digest or by checksum, once, and nothing else is taken for them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.container_images import Image, ImageError, Store

PULLED = Image("docker.io/langgenius/dify-api@sha256:" + "a" * 64)


class Podman:
    """Podman as far as images go: what it has, and what it was told."""

    def __init__(self, loads: str = "Loaded image: docker.io/langgenius/dify-web:1.16.0\n") -> None:
        """Have no images, and say this after a load."""
        self.images: set[str] = set()
        self.said: list[list[str]] = []
        self.loads = loads
        self.refuses = ""

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        """Do as told."""
        self.said.append(command)
        if command[1:3] == ["image", "exists"]:
            return (0 if command[3] in self.images else 1), "", ""
        if self.refuses:
            return 125, "", self.refuses
        if command[1] == "pull":
            self.images.add(command[-1])
        if command[1] == "load":
            return 0, self.loads, ""
        if command[1] == "tag":
            self.images.add(command[3])
        return 0, "", ""

    def verbs(self) -> list[str]:
        """Give what was done, in order."""
        return [command[1] for command in self.said if command[1] != "image"]


@pytest.fixture
def podman() -> Podman:
    return Podman()


@pytest.fixture
def archived(tmp_path: Path) -> Image:
    path = tmp_path / "web.tar"
    path.write_bytes(b"layers" * 400_000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Image(f"localhost/dify-web:sha256-{digest}", str(path), digest)


def test_what_is_missing_comes_and_a_second_time_nothing_is_missing(podman: Podman, archived: Image) -> None:
    store = Store(podman)
    assert store.missing([PULLED, archived, PULLED]) == [PULLED, archived]
    for image in (PULLED, archived):
        store.fetch(image)
    assert podman.verbs() == ["pull", "load", "tag"]
    Path(archived.archive).unlink()
    assert store.missing([PULLED, archived]) == []


def test_what_was_loaded_bears_its_archives_checksum(podman: Podman, archived: Image) -> None:
    Store(podman).fetch(archived)
    assert podman.said[-2] == ["podman", "tag", "docker.io/langgenius/dify-web:1.16.0", archived.reference]


def test_an_image_without_a_name_of_its_own_is_tagged_by_what_podman_calls_it(archived: Image) -> None:
    podman = Podman("Loaded image: sha256:" + "c" * 64 + "\n")
    Store(podman).fetch(archived)
    assert podman.said[-2][2] == "sha256:" + "c" * 64


def test_an_archive_that_is_another_is_never_loaded(podman: Podman, archived: Image) -> None:
    with Path(archived.archive).open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(ImageError, match="not " + archived.sha256):
        Store(podman).fetch(archived)
    assert podman.verbs() == []


def test_an_archive_that_is_not_there_is_told(podman: Podman) -> None:
    with pytest.raises(ImageError, match=r"/nowhere\.tar: No such file"):
        Store(podman).fetch(Image("localhost/x:sha256-" + "a" * 64, "/nowhere.tar", "a" * 64))


def test_an_archive_of_several_images_is_refused(archived: Image) -> None:
    podman = Podman("Loaded image: a:1\nLoaded image: b:1\n")
    with pytest.raises(ImageError, match=r"holds 2 images \(a:1, b:1\)"):
        Store(podman).fetch(archived)
    assert podman.verbs() == ["load"]


def test_a_registry_that_refuses_is_told_with_its_reason(podman: Podman) -> None:
    podman.refuses = "Trying to pull…\nError: initializing source: pinging container registry: connection refused\n"
    with pytest.raises(ImageError, match="connection refused\nIs the registry"):
        Store(podman).fetch(PULLED)


def test_credentials_are_handed_over_by_file(podman: Podman) -> None:
    Store(podman, "/etc/containers/auth.json").fetch(PULLED)
    assert podman.said[0] == ["podman", "pull", "--quiet", "--authfile", "/etc/containers/auth.json", PULLED.reference]


def test_podman_that_fails_is_not_taken_for_an_image_that_is_missing() -> None:
    with pytest.raises(ImageError, match="cannot read its images: no space left"):
        Store(lambda dummy: (125, "", "no space left on device\n")).missing([PULLED])


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (Image("docker.io/langgenius/dify-api:1.16.0"), "neither a digest nor an archive"),
        (Image("docker.io/langgenius/dify-api@sha256:abc"), "64 hexadecimal digits"),
        (Image("localhost/dify-web:latest", "/srv/web.tar", "d" * 64), "does not bear the archive's checksum"),
    ],
)
def test_a_name_that_could_mean_another_image_is_refused(image: Image, fault: str) -> None:
    assert fault in image.faults()[0]
    assert PULLED.faults() == []
