"""What podman is given as a secret is in no environment that it writes down; nothing is lost, and nothing stays that nobody takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.role_program import PROJECT, load

PROGRAM = PROJECT / "roles/dify/files/dify_secrets.py"
SECRETS = load("dify", "dify_secrets")
ENVIRONMENT = "# managed\nMODE=api\nDB_PASSWORD=a=b c'\"$x\nURL=amqp://dify:p%2Fw@127.0.0.1/dify\nEMPTY=\n"


FAKE = """#!{python} -I
import json, pathlib, sys
store, (action, *words) = pathlib.Path({store!r}), sys.argv[2:]
(store.parent / "asked").open("a").write(action + "\\n")
names = [word for word in words if not word.startswith("-")]
if action == "create" and (store / "full").exists():
    sys.exit("no space left")
elif action == "create":
    (store / names[0]).write_text(sys.stdin.read())
elif action == "ls":
    print("\\n".join(path.name for path in store.iterdir()))
elif action == "rm":
    for name in names:
        (store / name).unlink()
else:
    print(json.dumps([{{"Spec": {{"Name": name}}, "SecretData": (store / name).read_text()}} for name in names]))
"""


def test_an_environment_is_taken_apart() -> None:
    secrets, others = SECRETS.apart(ENVIRONMENT, ["DB_PASSWORD", "URL"])
    assert secrets == {"DB_PASSWORD": "a=b c'\"$x", "URL": "amqp://dify:p%2Fw@127.0.0.1/dify"}
    assert others == "# managed\nMODE=api\nEMPTY=\n"


def test_what_nobody_takes_any_more_is_stale(tmp_path: Path) -> None:
    (tmp_path / "dify_beat.container").touch()
    known = ["dify_api_1.URL", "dify_api_1.FORMER", "dify_api_2.URL", "dify_beat.URL", "somebody.else", "dify_notes"]
    assert SECRETS.stale(known, "dify_api_1", ["URL"], tmp_path) == ["dify_api_1.FORMER", "dify_api_2.URL"]


@pytest.fixture
def podman(tmp_path: Path) -> Path:
    """Put a podman on the path that writes down what it was asked, and keeps secrets in files."""
    store = tmp_path / "store"
    store.mkdir()
    program = tmp_path / "podman"
    program.write_text(FAKE.format(python=sys.executable, store=str(store)))
    program.chmod(0o755)
    return store


def run(tmp_path: Path, *names: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "api.env").write_text(ENVIRONMENT)
    files = [f"--environment={tmp_path}/api.env", f"--others={tmp_path}/others", f"--units={tmp_path}"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.run([sys.executable, str(PROGRAM), *files, "dify_api_1", *names], env=environment, capture_output=True, text=True, check=False)


def test_podman_gets_the_secrets_and_a_file_without_them(tmp_path: Path, podman: Path) -> None:
    (podman / "dify_worker_1.URL").write_text("of a unit that is gone")
    done = run(tmp_path, "DB_PASSWORD", "URL")
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text() for path in podman.iterdir()} == {
        "dify_api_1.DB_PASSWORD": "a=b c'\"$x",
        "dify_api_1.URL": "amqp://dify:p%2Fw@127.0.0.1/dify",
    }
    assert (tmp_path / "others").read_text() == "# managed\nMODE=api\nEMPTY=\n"
    assert (tmp_path / "others").stat().st_mode & 0o777 == 0o600
    # Another start, with one that has changed: the others are left alone.
    (podman / "dify_api_1.URL").write_text("amqp://former")
    (tmp_path / "asked").unlink()
    assert run(tmp_path, "DB_PASSWORD", "URL").returncode == 0
    assert (tmp_path / "asked").read_text().split() == ["ls", "inspect", "create"]
    assert (podman / "dify_api_1.URL").read_text() == "amqp://dify:p%2Fw@127.0.0.1/dify"


def test_a_variable_that_is_missing_keeps_the_unit_from_starting(tmp_path: Path, podman: Path) -> None:
    done = run(tmp_path, "DB_PASSWORD", "SECRET_KEY")
    assert done.returncode == 1
    assert "api.env has no SECRET_KEY" in done.stderr
    assert not (tmp_path / "others").exists()


def test_what_podman_complains_of_is_told_without_the_secret(tmp_path: Path, podman: Path) -> None:
    (podman / "full").touch()
    done = run(tmp_path, "DB_PASSWORD")
    assert done.returncode == 1
    assert done.stderr.strip() == "podman secret create: no space left"
