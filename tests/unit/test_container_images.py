"""Images come by digest or by checksum, once, into room that is there, and nothing else is taken for them."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible_collections.sovereign.dify.plugins.module_utils.container_images import Image, ImageError, Store, archive_size, shortages

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


# Room.

LAYERS = (b"a layer " * 40_000, b"another " * 10_000)


def saved(path: Path, layers: tuple[bytes, ...] = LAYERS) -> Path:
    """An archive as `podman save` writes it."""
    with tarfile.open(path, "w") as archive:
        for number, layer in enumerate(layers):
            member = tarfile.TarInfo(f"{number}/layer.tar")
            member.size = len(layer)
            archive.addfile(member, io.BytesIO(layer))
    return path


def test_an_archive_tells_what_it_takes_packed_and_unpacked(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.tar")
    held = sum(len(layer) for layer in LAYERS)
    assert archive_size(plain) == (plain.stat().st_size, held)
    oci = saved(tmp_path / "oci.tar", tuple(gzip.compress(layer) for layer in LAYERS))
    assert archive_size(oci) == (oci.stat().st_size, held)
    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert archive_size(packed) == (packed.stat().st_size, plain.stat().st_size)
    other = tmp_path / "other.tar.xz"
    other.write_bytes(lzma.compress(plain.read_bytes()))
    assert archive_size(other) == (other.stat().st_size, 4 * other.stat().st_size)


def test_a_gzip_of_more_than_4_gib_is_not_taken_for_a_small_one(tmp_path: Path) -> None:
    large = tmp_path / "large.tar.gz"
    with large.open("wb") as stream:
        stream.write(b"\x1f\x8b")
        stream.truncate(3_000_000_000)
        stream.seek(0, 2)
        # It holds 5 GB, of which its end says the remainder of 4 GiB.
        stream.write((5_000_000_000 % (1 << 32)).to_bytes(4, "little"))
    assert archive_size(large) == (3_000_000_004, 5_000_000_000)


def test_the_lookup_gives_both_and_says_which_archive_is_not_there(tmp_path: Path) -> None:
    plugin = lookup_loader.get("sovereign.dify.image_archive", loader=DataLoader())
    path = saved(tmp_path / "plain.tar")
    assert plugin.run([str(path)]) == [{"packed": path.stat().st_size, "unpacked": 400_000}]
    with pytest.raises(AnsibleLookupError, match=r"/nowhere\.tar: No such file"):
        plugin.run(["/nowhere.tar"])


GIGABYTE = 1_000_000_000
API = Image("localhost/api:sha256-a", "/var/lib/sovereign/images/a.tar", "a", GIGABYTE, 3 * GIGABYTE)
WEB = Image("localhost/web:sha256-b", "/var/lib/sovereign/images/b.tar", "b", GIGABYTE // 4, GIGABYTE)
STORAGE = Path("/var/lib/containers/storage")


def test_all_that_comes_must_have_room_and_what_is_there_wants_none() -> None:
    # 1.1 times 4 GB in the storage, both archives, and the larger one unpacked while it is loaded.
    needed = 4_400_000_000 + 1_250_000_000 + 3 * GIGABYTE
    assert shortages([API, WEB], STORAGE, lambda dummy: (1, needed)) == []
    (told,) = shortages([API, WEB], STORAGE, lambda dummy: (1, needed - 1))
    assert (
        "Images that are missing (2) want 8650 MB (/var/lib/containers/storage 4400 MB, /var/lib/sovereign/images 1250 MB, /var/tmp 3000 MB)" in told
    )
    assert ", and 8649 MB are free" in told
    assert shortages([], STORAGE, lambda dummy: (1, 0)) == []


def test_room_of_another_file_system_is_no_room(tmp_path: Path) -> None:
    brought = replace(WEB, archive=str(saved(tmp_path / "b.tar")))
    storage = tmp_path / "storage"
    storage.mkdir()

    def free(path: Path) -> tuple[int, int]:
        return (1, GIGABYTE) if path == storage else (2, 100 * GIGABYTE)

    (told,) = shortages([brought], storage, free)
    assert f"want 1100 MB ({storage} 1100 MB), and 1000 MB are free" in told, "the archive is there"
    # A directory that is not there yet will be on the file system of what is above it.
    assert "1100 MB" in shortages([brought], storage / "not/yet", free)[0]


def test_what_is_pulled_is_unpacked_as_it_comes() -> None:
    pulled = replace(PULLED, packed=GIGABYTE, unpacked=2 * GIGABYTE)
    assert shortages([pulled], STORAGE, lambda dummy: (1, 3_200_000_000)) == []
    assert "want 3200 MB (/var/lib/containers/storage 2200 MB, /var/tmp 1000 MB)" in shortages([pulled], STORAGE, lambda dummy: (1, GIGABYTE))[0]
