"""What an image is run for once, with no more rights than that takes; and which byte code nobody needs any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ansible_collections.sovereign.dify.plugins.module_utils.container_once import once
from ansible_collections.sovereign.dify.plugins.modules.dify_bytecode import IMPORT, superseded


def test_a_container_that_runs_once_has_no_rights_and_ends() -> None:
    command = once(
        "one", "image@sha256:1", user="990:991", environment_file="/etc/one.env", volumes=["/a:/b:ro"], timeout=9, command=["python", "-c", "1"]
    )
    assert command[:2] == ["podman", "run"]
    assert {"--rm", "--pull=never", "--cap-drop=all", "--security-opt=no-new-privileges", "--timeout=9", "--network=host"} <= set(command)
    assert {"--user=990:991", "--env-file=/etc/one.env", "--volume=/a:/b:ro", "--entrypoint=python"} <= set(command)
    assert command[command.index("image@sha256:1") :] == ["image@sha256:1", "-c", "1"]


def test_without_a_command_it_is_the_images_own() -> None:
    command = once("one", "image@sha256:1")
    assert command[-1] == "image@sha256:1"
    assert not any(word.startswith(("--user", "--env-file", "--volume", "--entrypoint")) for word in command)


def test_byte_code_that_a_unit_still_names_is_kept(tmp_path: Path) -> None:
    cache, units = tmp_path / "cache", tmp_path / "units"
    for name in ("former", "running", "new"):
        (cache / name).mkdir(parents=True)
    units.mkdir()
    (units / "api.container").write_text(f"Volume={cache}/running:/var/cache/bytecode:ro\n")
    assert superseded(cache / "new", units) == [cache / "former"]
    assert superseded(cache / "absent", tmp_path / "nowhere") == [cache / "former", cache / "new", cache / "running"]


def test_what_cannot_be_imported_does_not_keep_the_rest_from_being_compiled(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import part\nraise SystemExit('no network')\n")
    (tmp_path / "part.py").write_text("PART = 1\n")
    (tmp_path / "whole.py").write_text("WHOLE = 1\n")
    command = [sys.executable, "-c", IMPORT, "broken", "absent", "whole"]
    environment = {"PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "broken: SystemExit: no network" in done.stdout
    assert "absent: ModuleNotFoundError" in done.stdout
    assert {path.name.partition(".")[0] for path in (tmp_path / "compiled").rglob("*.pyc")} >= {"broken", "part", "whole"}
