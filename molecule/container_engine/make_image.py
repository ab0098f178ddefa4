"""Writes a small image as an archive in Docker's form: this machine's `sleep` and `env`, and the libraries that they need."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

PROGRAMS = ("sleep", "env")


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Add a file whose content alone decides what the archive holds."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def layer() -> bytes:
    """Make the image's one layer."""
    programs = [Path("/usr/bin") / name for name in PROGRAMS]
    linked = "".join(subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout for program in programs)
    files = {str(program): program for program in programs} | {path: Path(path) for path in re.findall(r"(/\S+) \(0x", linked)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in sorted(files.items()):
            add(archive, name.lstrip("/"), path.read_bytes(), 0o755)
    return buffer.getvalue()


def main(target: Path) -> None:
    """Write the archive, and its checksum beside it."""
    content = layer()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/usr/bin/sleep", "infinity"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
    }
    described = json.dumps(config, sort_keys=True).encode()
    name = hashlib.sha256(described).hexdigest() + ".json"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        add(archive, "layer.tar", content)
        add(archive, name, described)
        add(archive, "manifest.json", json.dumps([{"Config": name, "RepoTags": ["registry.engine.test/tool:1"], "Layers": ["layer.tar"]}]).encode())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(buffer.getvalue())
    Path(f"{target}.sha256").write_text(hashlib.sha256(buffer.getvalue()).hexdigest() + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
