"""What may be served, and how it gets to where it is served from."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils import model_store
from ansible_collections.sovereign.dify.plugins.module_utils.model_store import (
    Model,
    ModelError,
    Store,
    inspect,
    manifest_of,
    parse_checksums,
    safetensors_fault,
)


def safetensors(tensor: bytes = b"\0" * 8) -> bytes:
    header = json.dumps({"weight": {"dtype": "F32", "shape": [len(tensor) // 4], "data_offsets": [0, len(tensor)]}}).encode()
    return struct.pack("<Q", len(header)) + header + tensor


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (directory / "model.safetensors").write_bytes(safetensors())
    (directory / "tokenizer.json").write_text(json.dumps({"vocab": {"auto_map": 1}}))
    (directory / "LICENSE.txt").write_text("free")
    (directory / ".git").mkdir()
    (directory / ".git" / "hook.py").write_text("")
    return directory


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def reasons(model: Model) -> str:
    with pytest.raises(ModelError) as refusal:
        inspect(model)
    return "; ".join(refusal.value.reasons)


def test_a_model_of_safetensors_and_plain_data_is_accepted_and_hidden_files_are_left_out(source: Path) -> None:
    assert inspect(Model("m", source)) == ["LICENSE.txt", "config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pytorch_model.bin", "a pickle"),
        ("consolidated.00.pth", "a pickle"),
        ("weights.PT", "a pickle"),
        ("optimizer.pkl", "a pickle"),
        ("model.ckpt", "a pickle"),
        ("modeling_custom.py", "code"),
        ("kernel.so", "code"),
        ("model.gguf", "not safetensors"),
        ("install.sh", "not a file that a model of safetensors consists of"),
        ("payload", "not a file that a model of safetensors consists of"),
    ],
)
def test_what_could_run_code_is_refused(source: Path, name: str, reason: str) -> None:
    (source / name).write_bytes(b"x")
    assert f"{name} is {reason}" in reasons(Model("m", source))


def test_all_mistakes_are_named_at_once(source: Path) -> None:
    (source / "a.bin").write_bytes(b"x")
    (source / "deep").mkdir()
    (source / "deep" / "b.py").write_bytes(b"x")
    found = reasons(Model("m", source))
    assert "a.bin" in found
    assert "deep/b.py" in found


@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_configuration_that_names_code_is_refused_however_deep(source: Path, file: str, key: str) -> None:
    (source / file).write_text(json.dumps({"text_config": [{key: {"AutoModel": "modeling.Evil"}}]}))
    assert f"{file} has '{key}'" in reasons(Model("m", source))


def test_a_word_of_the_vocabulary_is_not_a_key_of_the_configuration(source: Path) -> None:
    assert "tokenizer.json" in inspect(Model("m", source))


def test_a_pickle_under_another_name_is_refused(source: Path) -> None:
    (source / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"x" * 100)
    assert "model.safetensors is not safetensors" in reasons(Model("m", source))


@pytest.mark.parametrize("content", [b"", b"\0" * 7, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b'{"a": 1} ', struct.pack("<Q", 2**60)])
def test_a_broken_header_is_a_fault_and_no_crash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert safetensors_fault(tmp_path / "x.safetensors") is not None


@pytest.mark.parametrize("change", [-1, 1])
def test_a_truncated_or_extended_file_is_refused(source: Path, change: int) -> None:
    whole = safetensors()
    (source / "model.safetensors").write_bytes(whole[:change] if change < 0 else whole + b"x")
    assert "model.safetensors is damaged" in reasons(Model("m", source))


def test_a_shard_that_the_index_names_must_be_there(source: Path) -> None:
    (source / model_store.INDEX).write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    assert "model-2.safetensors is missing" in reasons(Model("m", source))


def test_a_directory_without_weights_or_configuration_or_none_at_all_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").unlink()
    (source / "config.json").unlink()
    found = reasons(Model("m", source))
    assert "no *.safetensors" in found
    assert "no config.json" in found
    assert "is not a directory" in reasons(Model("m", tmp_path / "nowhere"))


def test_a_link_out_of_the_model_is_refused_and_the_layout_of_the_hugging_face_cache_is_not(tmp_path: Path, source: Path) -> None:
    secret = tmp_path / "shadow.txt"
    secret.write_text("secret")
    (source / "NOTICE.txt").symlink_to(secret)
    assert "NOTICE.txt is a link out of the model's directory" in reasons(Model("m", source))
    (source / "NOTICE.txt").unlink()
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    source.rename(tmp_path / "models--x" / "blobs")
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert inspect(Model("m", snapshot)) == ["config.json", "model.safetensors"]


def test_what_anybody_may_write_is_not_served_in_place(source: Path) -> None:
    (source / "model.safetensors").chmod(0o666)
    assert "model.safetensors may be written by anybody" in reasons(Model("m", source, in_place=True))
    assert inspect(Model("m", source))


def test_excluded_files_are_neither_refused_nor_copied(source: Path, store: Store) -> None:
    (source / "original").mkdir()
    (source / "original" / "consolidated.pth").write_bytes(b"x")
    staged = store.stage(Model("m", source, exclude=("original/*",)))
    assert not (staged.path / "original").exists()


def test_a_copy_is_complete_private_and_under_the_manifests_digest(source: Path, store: Store) -> None:
    staged = store.stage(Model("m", source))
    assert staged.changed
    assert staged.path == store.root / "m" / staged.digest[:16]
    assert (staged.path / "model.safetensors").read_bytes() == safetensors()
    assert {path.stat().st_mode & 0o777 for path in staged.path.iterdir()} == {0o640}
    assert (store.manifests / "m.sha256").read_text() == staged.manifest
    assert not list((store.root / ".partial").iterdir())


def test_the_manifest_is_what_sha256sum_writes() -> None:
    manifest = manifest_of({"b": "1" * 64, "a/c": "2" * 64})
    assert manifest == f"{'2' * 64}  a/c\n{'1' * 64}  b\n"
    assert parse_checksums(manifest.replace("a/c", "./a/c") + "# not a line\n") == {"b": "1" * 64, "a/c": "2" * 64}


def test_a_second_run_changes_nothing_and_reads_no_file(source: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.stage(Model("m", source))
    monkeypatch.setattr(model_store, "sha256", lambda *_: pytest.fail("a file was read again"))
    second = Store(store.root).stage(Model("m", source))
    assert not second.changed
    assert second.path == first.path


def test_in_check_mode_nothing_is_written(source: Path, store: Store) -> None:
    assert store.stage(Model("m", source), dry_run=True).changed
    assert not store.root.exists()


def test_a_changed_source_gets_a_directory_of_its_own_and_the_old_one_is_reported(source: Path, store: Store) -> None:
    old = store.stage(Model("m", source))
    (source / "model.safetensors").write_bytes(safetensors(b"\1" * 8))
    new = store.stage(Model("m", source))
    assert new.changed
    assert new.path != old.path
    assert new.obsolete == (old.path,)
    assert (old.path / "model.safetensors").read_bytes() == safetensors()
    assert new.before == old.manifest


def test_a_tampered_source_is_refused_and_the_copy_in_use_stays(source: Path, store: Store) -> None:
    good = store.stage(Model("m", source))
    model = Model("m", source, manifest_sha256=good.digest.upper())
    assert not store.stage(model).changed
    times = (source / "model.safetensors").stat()
    (source / "model.safetensors").write_bytes(safetensors(b"\1" * 8))
    os.utime(source / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ModelError, match="manifest_sha256 demands"):
        store.stage(model)
    assert (good.path / "model.safetensors").read_bytes() == safetensors()


def test_a_tampered_copy_is_made_anew(source: Path, store: Store) -> None:
    staged = store.stage(Model("m", source))
    (staged.path / "model.safetensors").write_bytes(safetensors(b"\1" * 8))
    again = store.stage(Model("m", source))
    assert again.changed
    assert again.replaced
    assert (staged.path / "model.safetensors").read_bytes() == safetensors()


def test_an_extra_file_in_a_copy_is_removed(source: Path, store: Store) -> None:
    staged = store.stage(Model("m", source))
    (staged.path / "evil.py").write_text("")
    assert store.stage(Model("m", source)).replaced
    assert not (staged.path / "evil.py").exists()


@pytest.mark.parametrize("name", model_store.CHECKSUM_FILES)
def test_checksums_that_came_with_the_model_must_cover_it_and_agree(source: Path, store: Store, name: str) -> None:
    manifest = store.stage(Model("m", source), dry_run=True).manifest
    (source / name).write_text(manifest)
    assert store.stage(Model("m", source)).manifest == manifest
    (source / name).write_text(manifest.replace(parse_checksums(manifest)["model.safetensors"], "0" * 64))
    with pytest.raises(ModelError, match=r"model\.safetensors differs from the source's"):
        store.stage(Model("m", source))
    (source / name).write_text("".join(line for line in manifest.splitlines(keepends=True) if "config.json" not in line))
    with pytest.raises(ModelError, match=r"config.json is not listed"):
        store.stage(Model("m", source))
    (source / name).write_text(manifest + f"{'1' * 64}  gone.safetensors\n")
    with pytest.raises(ModelError, match=r"gone.safetensors is missing"):
        store.stage(Model("m", source))


def test_an_interrupted_copy_is_invisible_and_goes_on_where_it_was(source: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_file = Store._copy_file

    def interrupted(self: Store, origin: Path, target: Path) -> str:
        if origin.name == "tokenizer.json":
            raise KeyboardInterrupt
        return copy_file(self, origin, target)

    monkeypatch.setattr(Store, "_copy_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.stage(Model("m", source))
    assert not list((store.root / "m").iterdir())
    written: list[str] = []

    def observed(self: Store, origin: Path, target: Path) -> str:
        written.append(origin.name)
        return copy_file(self, origin, target)

    monkeypatch.setattr(Store, "_copy_file", observed)
    assert (store.stage(Model("m", source)).path / "tokenizer.json").is_file()
    assert "model.safetensors" not in written


def test_the_copy_serves_on_when_its_source_is_gone(source: Path, store: Store) -> None:
    staged = store.stage(Model("m", source))
    source.rename(source.with_name("unplugged"))
    assert store.stage(Model("m", source)) == model_store.Staged(staged.path, staged.manifest, staged.size, changed=False, before=staged.manifest)
    (staged.path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="is gone, and its copy"):
        store.stage(Model("m", source))


def test_a_full_disk_is_told_before_anything_is_written(source: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(ModelError, match=r"needs \d+ bytes, and .* has 3"):
        store.stage(Model("m", source))


def test_in_place_serves_the_source_and_notices_when_it_changes(source: Path, store: Store) -> None:
    model = Model("m", source, in_place=True)
    first = store.stage(model)
    assert first.path == source
    assert first.changed
    assert not store.stage(model).changed
    (source / "LICENSE.txt").write_text("costly")
    assert store.stage(model).changed


def test_models_that_are_not_declared_are_reported(source: Path, store: Store) -> None:
    store.stage(Model("m", source))
    store.stage(Model("n", source))
    assert store.undeclared(["m"]) == [store.root / "n"]
    assert Store(store.root / "nowhere").undeclared([]) == []


def test_a_large_model_is_not_read_in_check_mode(source: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "DRY_RUN_BYTES", 10)
    staged = store.stage(Model("m", source), dry_run=True)
    assert staged.changed
    assert staged.manifest == ""
