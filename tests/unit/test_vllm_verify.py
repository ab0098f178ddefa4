"""A model's files against their manifest, before each start."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.role_program import PROJECT, load

vllm_verify = load("vllm", "vllm_verify")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "deeper").mkdir(parents=True)
    for name, content in {"config.json": "{}", "model.safetensors": "weights", "deeper/with space.json": "[]"}.items():
        (directory / name).write_text(content)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(directory)}" for path in directory.rglob("*.*")]
    (tmp_path / "model.sha256").write_text("\n".join(sorted(lines)) + "\n")
    return directory


def differences(model: Path, complete: bool = True) -> list[str]:
    found: list[str] = vllm_verify.differences(model, (model.parent / "model.sha256").read_text(), complete)
    return found


def test_what_the_manifest_says_is_served(model: Path) -> None:
    assert differences(model) == []


def test_a_byte_that_has_changed_is_found_though_size_and_times_are_the_same(model: Path) -> None:
    weights = model / "model.safetensors"
    before = weights.stat()
    weights.write_text("weightz")

    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert differences(model) == ["model.safetensors is not what the manifest says"]


def test_what_is_missing_and_what_is_too_many_is_named(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "modeling.py").write_text("import os")
    assert differences(model) == ["config.json cannot be read: No such file or directory", "modeling.py is not in the manifest"]


def test_a_directory_that_is_served_in_place_may_hold_more(model: Path) -> None:
    (model / ".gitattributes").write_text("")
    assert differences(model, complete=False) == []


@pytest.mark.parametrize(("manifest", "problem"), [("", "names no file"), ("not a line\n", "a line that is none")])
def test_a_manifest_that_is_none_lets_nothing_be_served(model: Path, manifest: str, problem: str) -> None:
    (reason,) = vllm_verify.differences(model, manifest)
    assert problem in reason


@pytest.mark.parametrize(
    ("sha256", "code", "said"), [(None, 0, "is what its manifest says"), ("0" * 64, 1, "is not the one that it was configured with")]
)
def test_the_manifest_itself_must_be_the_one_that_was_configured(model: Path, sha256: str | None, code: int, said: str) -> None:
    manifest = model.parent / "model.sha256"
    wanted = sha256 or hashlib.sha256(manifest.read_bytes()).hexdigest()
    command = [
        sys.executable,
        "-I",
        str(PROJECT / "roles/vllm/files/vllm_verify.py"),
        f"--directory={model}",
        f"--manifest={manifest}",
        f"--sha256={wanted}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
