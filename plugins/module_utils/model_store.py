# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Model directories: what may be in one, what is in it (SHA-256), and how it gets to where a server reads it.

A model is data, never code. What could run code when it is loaded (pickles, Python files, ``auto_map``) is refused, whatever the server would do
with it. Runs on managed hosts: the standard library only.

The store keeps, for each model::

    <root>/<name>/<first 16 digits of the manifest's SHA-256>/…    a staged copy; complete, or not there
    <root>/.partial/<name>/…                                       a copy that is under way, or was interrupted
    <root>/.manifests/<name>.sha256                                the manifest, as ``sha256sum --check`` reads it
    <root>/.manifests/<name>.json                                  what was hashed when: files that have not changed are not read again

A changed model gets a directory of its own, so that a running server's files never change under it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WEIGHTS = ".safetensors"
DATA_SUFFIXES = frozenset({WEIGHTS, ".json", ".jinja", ".jsonl", ".md", ".model", ".png", ".jpg", ".jpeg", ".svg", ".tiktoken", ".txt", ".pdf"})
DATA_NAMES = frozenset({"LICENSE", "NOTICE", "README", "USE_POLICY", "VERSION"})
REASONS = {
    ".bin": "a pickle: loading it can run code",
    ".ckpt": "a pickle: loading it can run code",
    ".joblib": "a pickle: loading it can run code",
    ".pickle": "a pickle: loading it can run code",
    ".pkl": "a pickle: loading it can run code",
    ".pt": "a pickle: loading it can run code",
    ".pth": "a pickle: loading it can run code",
    ".py": "code",
    ".so": "code",
    ".gguf": "not safetensors, and vLLM's support of it is experimental",
    ".h5": "not safetensors",
    ".msgpack": "not safetensors",
    ".onnx": "not safetensors",
}
CHECKSUM_FILES = ("SHA256SUMS", "manifest.sha256")
INDEX = "model.safetensors.index.json"
CODE_KEYS = frozenset({"auto_map", "custom_pipelines"})
CHUNK = 8 * 1024 * 1024
LARGEST_HEADER = 100_000_000
DIGEST_DIGITS = 16
PART = ".part"
# Check mode reads no more than this to tell what would change.
DRY_RUN_BYTES = 2**30

Refusals = list[str]


class ModelError(Exception):
    """A model that must not be served, with every reason.

    Attributes:
        name: Name of the model.
        reasons: One sentence each.
    """

    def __init__(self, name: str, reasons: Iterable[str]) -> None:
        """Remember the model and the reasons."""
        self.name = name
        self.reasons = list(reasons)
        super().__init__(f"model {name!r} is refused: {'; '.join(self.reasons)}")


@dataclass(frozen=True)
class Model:
    """What is wanted.

    Attributes:
        name: Name that the model is served under.
        source: Directory with its files.
        manifest_sha256: SHA-256 that its manifest must have; empty if nothing is demanded.
        exclude: Patterns of file names that are left out of the copy.
        in_place: Whether the source is served as it is, without a copy.
    """

    name: str
    source: Path
    manifest_sha256: str = ""
    exclude: tuple[str, ...] = ()
    in_place: bool = False


@dataclass(frozen=True)
class Staged:
    """What there is.

    Attributes:
        path: Directory to serve.
        manifest: Lines as ``sha256sum`` writes them, sorted by path.
        size: Bytes.
        changed: Whether anything had to be done.
        obsolete: Older copies of the model, no longer wanted.
        replaced: Whether a copy was made anew because it was not what its manifest says.
        before: The manifest that was in force before; empty if there was none.
    """

    path: Path
    manifest: str
    size: int
    changed: bool
    obsolete: tuple[Path, ...] = ()
    replaced: bool = False
    before: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest."""
        return hashlib.sha256(self.manifest.encode()).hexdigest()


def identity(path: Path) -> list[int]:
    """Tell whether a file is still the one that was hashed.

    The time of change (ctime) is part of it, because the time of modification can be set at will.

    Returns:
        Inode, size in bytes, mtime and ctime in nanoseconds.
    """
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


@dataclass
class Hashes:
    """SHA-256 of files, remembered by their identity.

    Attributes:
        known: ``{path: [*identity, sha256]}``.
    """

    known: dict[str, list[Any]] = field(default_factory=dict)

    def recall(self, path: Path) -> str | None:
        """Give the remembered hash of a file that has not changed since."""
        entry = self.known.get(str(path))
        return str(entry[-1]) if entry and entry[:-1] == identity(path) else None

    def remember(self, path: Path, digest: str) -> None:
        """Remember the hash of a file as it is now."""
        self.known[str(path)] = [*identity(path), digest]

    def of(self, paths: Iterable[Path], workers: int) -> dict[Path, str]:
        """Hash files in parallel, reading only those that have changed.

        ``hashlib`` lets go of the interpreter's lock while it hashes, so threads do use the cores.
        """
        recalled = {path: self.recall(path) for path in paths}
        unknown = [path for path, digest in recalled.items() if digest is None]
        with ThreadPoolExecutor(workers) as pool:
            for path, digest in zip(unknown, pool.map(sha256, unknown), strict=True):
                self.remember(path, digest)
                recalled[path] = digest
        return {path: str(digest) for path, digest in recalled.items()}


def sha256(path: Path, write: Callable[[bytes], object] = lambda _: None) -> str:
    """Hash a file, and hand every piece read to ``write``."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
            write(piece)
    return digest.hexdigest()


def files_below(source: Path) -> Iterator[str]:
    """Give the paths of all files, relative to the source, hidden ones left out (``.git``, ``.cache`` and the like)."""
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield str((Path(folder) / name).relative_to(source))


def inspect(model: Model) -> list[str]:
    """Find a model's files and refuse what must not be served.

    Args:
        model: The model; its source must be a directory.

    Returns:
        Paths relative to the source, sorted, without checksum files and what is excluded.

    Raises:
        ModelError: With all reasons at once.
    """
    if not model.source.is_dir():
        raise ModelError(model.name, [f"its source {model.source} is not a directory on this host"])
    found = [path for path in files_below(model.source) if path not in CHECKSUM_FILES]
    wanted = [path for path in found if not any(fnmatch.fnmatch(path, pattern) for pattern in model.exclude)]
    reasons = [*_refuse_names(wanted), *_refuse_links(model.source, wanted)]
    if not reasons:
        reasons = [*_refuse_weights(model.source, wanted), *_refuse_code_in_json(model.source, wanted)]
    if model.in_place:
        reasons += [f"{path} may be written by anybody" for path in [".", *wanted] if (model.source / path).stat().st_mode & 0o002]
    if reasons:
        raise ModelError(model.name, reasons)
    return sorted(wanted)


def _refuse_names(paths: Iterable[str]) -> Refusals:
    reasons = []
    for path in paths:
        name = Path(path)
        if name.suffix.lower() not in DATA_SUFFIXES and not any(name.name.upper().startswith(known) for known in DATA_NAMES):
            reasons.append(f"{path} is {REASONS.get(name.suffix.lower(), 'not a file that a model of safetensors consists of')}")
        elif re.search(r"[\n\r\\]", path):
            reasons.append(f"{path!r} has a name that no manifest can hold")
    return reasons


def _refuse_links(source: Path, paths: Iterable[str]) -> Refusals:
    """Refuse links that lead out of the model; the Hugging Face cache links its snapshots to blobs beside them, which is fine."""
    real = source.resolve()
    home = real.parent.parent if real.parent.name == "snapshots" else real
    reasons = []
    for path in paths:
        target = (source / path).resolve()
        if not target.is_file():
            reasons.append(f"{path} is not a file")
        elif not target.is_relative_to(home):
            reasons.append(f"{path} is a link out of the model's directory, to {target}")
    return reasons


def _refuse_weights(source: Path, paths: list[str]) -> Refusals:
    weights = [path for path in paths if path.endswith(WEIGHTS)]
    reasons = [f"{path} {fault}" for path in weights if (fault := safetensors_fault(source / path))]
    if not weights:
        reasons.append("it has no *.safetensors file")
    if INDEX in paths:
        needed = set(json.loads((source / INDEX).read_text(encoding="utf-8")).get("weight_map", {}).values())
        reasons += [f"{path} is missing, which {INDEX} names" for path in sorted(needed - set(weights))]
    return reasons


def _refuse_code_in_json(source: Path, paths: Iterable[str]) -> Refusals:
    reasons = []
    for path in paths:
        if not re.search(r"config[^/]*\.json$", path):
            continue
        try:
            document = json.loads((source / path).read_text(encoding="utf-8"))
        except ValueError as error:
            reasons.append(f"{path} is not JSON: {error}")
            continue
        reasons += [f"{path} has {key!r}, which names code to load" for key in sorted(set(_keys(document)) & CODE_KEYS)]
    if "config.json" not in paths:
        reasons.append("it has no config.json")
    return reasons


def _keys(document: object) -> Iterator[str]:
    if isinstance(document, dict):
        yield from document
        for value in document.values():
            yield from _keys(value)
    elif isinstance(document, list):
        for value in document:
            yield from _keys(value)


def safetensors_fault(path: Path) -> str | None:
    """Say what is wrong with a file that calls itself safetensors.

    The format: eight bytes, little-endian, the length of a JSON header; the header, which places each tensor; the tensors. Finds a truncated download
    and a renamed pickle without reading the tensors.

    Returns:
        The end of a sentence that starts with the file's name, or nothing.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(LARGEST_HEADER, size - 8):
            return "is not safetensors, whatever its name says"
        try:
            header = json.loads(stream.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            return "is not safetensors, whatever its name says"
    if 8 + length + end != size:
        return f"is damaged: {size} bytes where its header promises {8 + length + end}"
    return None


def manifest_of(digests: Mapping[str, str]) -> str:
    """Write a manifest as ``sha256sum`` does: a line for each file, sorted by path."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))


def parse_checksums(text: str) -> dict[str, str]:
    """Read what ``sha256sum`` has written.

    Returns:
        ``{path: sha256}``; paths without a leading ``./``.
    """
    lines = (re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line.strip()) for line in text.splitlines())
    return {match[2]: match[1].lower() for match in lines if match}


class Store:
    """The staged models of one host."""

    def __init__(self, root: Path, gid: int = -1, workers: int = 4) -> None:
        """Open a store.

        Args:
            root: Directory of the store; made when something is staged.
            gid: Group that may read the copies; -1 leaves the group alone.
            workers: Files that are read at the same time.
        """
        self.root = root
        self.gid = gid
        self.workers = workers
        self.manifests = root / ".manifests"

    def undeclared(self, names: Iterable[str]) -> list[Path]:
        """Give the directories of models that are none of these."""
        if not self.root.is_dir():
            return []
        declared = set(names)
        return sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name not in declared)

    def stage(self, model: Model, dry_run: bool = False) -> Staged:
        """Have a model ready to be served: inspected, hashed, compared, and copied unless it is served in place.

        Args:
            model: The model.
            dry_run: Whether to do everything except copying and remembering.

        Raises:
            ModelError: If it must not be served. The copy in use stays as it is then.
        """
        hashes = Hashes(self._read_state(model.name))
        remembered = json.dumps(hashes.known, sort_keys=True)
        before = self._read_manifest(model.name)
        if not model.source.is_dir() and before and not model.in_place:
            return self._without_source(model, before, hashes)
        paths = inspect(model)
        unread = [model.source / path for path in paths if hashes.recall(model.source / path) is None]
        if dry_run and sum(path.stat().st_size for path in unread) > DRY_RUN_BYTES:
            return Staged(model.source if model.in_place else self.root / model.name, "", 0, changed=True, before=before)
        digests = hashes.of((model.source / path for path in paths), self.workers)
        manifest = manifest_of({path: digests[model.source / path] for path in paths})
        self._compare(model, manifest)
        target = model.source if model.in_place else self._directory(model.name, manifest)
        # A copy that has been tampered with is made anew; its source has just been found right.
        sound = model.in_place or self._matches(target, manifest, hashes)
        replaced = not sound and target.exists()
        if not sound and not dry_run:
            self._copy(model, paths, manifest, target, hashes)
        changed = not sound or manifest != before
        if not dry_run:
            if changed:
                self._write(self.manifests / f"{model.name}.sha256", manifest)
            if changed or json.dumps(hashes.known, sort_keys=True) != remembered:
                self._write_state(model.name, hashes, model.source, target)
        size = sum((model.source / path).stat().st_size for path in paths)
        return Staged(target, manifest, size, changed, self._obsolete(model.name, target), replaced, before)

    def _without_source(self, model: Model, manifest: str, hashes: Hashes) -> Staged:
        """Go on with the copy when the medium it came from is gone."""
        self._compare(model, manifest)
        target = self._directory(model.name, manifest)
        if not self._matches(target, manifest, hashes):
            raise ModelError(model.name, [f"its source {model.source} is gone, and its copy {target} is not what its manifest says"])
        size = sum((target / path).stat().st_size for path in parse_checksums(manifest))
        return Staged(target, manifest, size, changed=False, obsolete=self._obsolete(model.name, target), before=manifest)

    def _compare(self, model: Model, manifest: str) -> None:
        """Compare with the hash that is demanded, and with the checksums that came with the model."""
        digest = hashlib.sha256(manifest.encode()).hexdigest()
        reasons = []
        if model.manifest_sha256 and digest != model.manifest_sha256.lower():
            reasons.append(f"its manifest has the SHA-256 {digest}, but manifest_sha256 demands {model.manifest_sha256}")
        found = parse_checksums(manifest)
        for name in CHECKSUM_FILES:
            if not (model.source / name).is_file():
                continue
            given = parse_checksums((model.source / name).read_text(encoding="utf-8"))
            reasons += [f"{path} is not listed in the source's {name}" for path in sorted(set(found) - set(given))]
            reasons += [f"{path} differs from the source's {name}" for path in sorted(set(found) & set(given)) if found[path] != given[path]]
            lost = (path for path in set(given) - set(found) - set(CHECKSUM_FILES) if not any(fnmatch.fnmatch(path, out) for out in model.exclude))
            reasons += [f"{path} is missing, which the source's {name} lists" for path in sorted(lost)]
        if reasons:
            raise ModelError(model.name, reasons)

    def _directory(self, name: str, manifest: str) -> Path:
        return self.root / name / hashlib.sha256(manifest.encode()).hexdigest()[:DIGEST_DIGITS]

    def _matches(self, target: Path, manifest: str, hashes: Hashes) -> bool:
        """Tell whether a staged copy holds exactly what the manifest says."""
        expected = parse_checksums(manifest)
        if not target.is_dir() or set(files_below(target)) != set(expected):
            return False
        digests = hashes.of((target / path for path in expected), self.workers)
        return all(digests[target / path] == digest for path, digest in expected.items())

    def _copy(self, model: Model, paths: list[str], manifest: str, target: Path, hashes: Hashes) -> None:
        """Copy beside, compare what was written, and move into place in one step."""
        partial = self.root / ".partial" / model.name
        expected = parse_checksums(manifest)
        for directory in (self.root, self.root / model.name, partial.parent, partial):
            self._make_directory(directory)
        leftover = [partial / path for path in set(files_below(partial)) - set(paths)]
        for unwanted in [*leftover, *partial.rglob(f"*{PART}")]:
            unwanted.unlink()
        for path in paths:
            self._make_directory((partial / path).parent)
        # Complete files of an interrupted copy are kept: read again, not written again.
        kept = hashes.of((partial / path for path in paths if (partial / path).is_file()), self.workers)
        wanted = [path for path in paths if kept.get(partial / path) != expected[path]]
        needed = sum((model.source / path).stat().st_size for path in wanted)
        free = shutil.disk_usage(partial).free
        if needed > free:
            raise ModelError(model.name, [f"its copy needs {needed} bytes, and {self.root} has {free}"])
        with ThreadPoolExecutor(self.workers) as pool:
            written = dict(zip(wanted, pool.map(lambda path: self._copy_file(model.source / path, partial / path), wanted), strict=True))
        wrong = [f"{path} changed while it was copied" for path, digest in written.items() if digest != expected[path]]
        if wrong:
            raise ModelError(model.name, wrong)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        for path in paths:
            hashes.remember(target / path, expected[path])

    def _copy_file(self, source: Path, target: Path) -> str:
        beside = target.with_name(f".{target.name}{PART}")
        with beside.open("wb") as stream:
            digest = sha256(source, stream.write)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(0o640)
        os.chown(beside, -1, self.gid)
        beside.replace(target)
        return digest

    def _make_directory(self, path: Path) -> None:
        if not path.is_dir():
            path.mkdir(mode=0o750, parents=True)
            os.chown(path, -1, self.gid)

    def _obsolete(self, name: str, target: Path) -> tuple[Path, ...]:
        home = self.root / name
        return tuple(sorted(path for path in home.iterdir() if path != target)) if home.is_dir() else ()

    def _read_manifest(self, name: str) -> str:
        path = self.manifests / f"{name}.sha256"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def _read_state(self, name: str) -> dict[str, list[Any]]:
        path = self.manifests / f"{name}.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}  # It only saves reading files again.

    def _write_state(self, name: str, hashes: Hashes, *kept: Path) -> None:
        known = {path: entry for path, entry in hashes.known.items() if any(Path(path).is_relative_to(home) for home in kept)}
        self._write(self.manifests / f"{name}.json", json.dumps(known, indent=1, sort_keys=True))

    def _write(self, path: Path, text: str) -> None:
        self._make_directory(self.root)
        self._make_directory(path.parent)
        beside = path.with_name(f".{path.name}{PART}")
        beside.write_text(text, encoding="utf-8")
        beside.chmod(0o640)
        os.chown(beside, -1, self.gid)
        beside.replace(path)
