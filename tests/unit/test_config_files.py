"""Files that are brought to their wanted state as a whole."""

from __future__ import annotations

import getpass
import grp
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.config_files import ConfigFilesError, Wanted, apply, changes, extras

PROJECT = Path(__file__).resolve().parents[2]
ME: dict[str, Any] = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getegid()).gr_name}


def mine(path: Path, state: str = "file", **keys: Any) -> Wanted:
    return Wanted(path, state, **ME, **keys)


def accept(dummy: str) -> str:
    return ""


def tree(root: Path) -> dict[str, Any]:
    """Show everything below a directory: names, modes, contents."""
    return {
        str(path.relative_to(root)): (f"{path.lstat().st_mode:o}", path.read_bytes() if path.is_file() else None) for path in sorted(root.rglob("*"))
    }


def test_what_is_missing_is_made_with_owner_and_mode_and_a_second_time_nothing_is_left_to_do(tmp_path: Path) -> None:
    wanted = [
        mine(tmp_path / "etc/tool", "directory", mode=0o750),
        mine(tmp_path / "etc/tool/tool.conf", content=b"a = 1\n", mode=0o640),
        mine(tmp_path / "new/parents/unit.conf", content=b"b\n"),
    ]
    pending = changes(wanted)
    assert [change.wanted for change in pending] == wanted
    apply(pending, accept)
    assert tree(tmp_path) == {
        "etc": ("40755", None),
        "etc/tool": ("40750", None),
        "etc/tool/tool.conf": ("100640", b"a = 1\n"),
        "new": ("40755", None),
        "new/parents": ("40755", None),
        "new/parents/unit.conf": ("100644", b"b\n"),
    }
    assert changes(wanted) == []


def test_a_refused_file_puts_everything_back(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("old\n")
    (tmp_path / "kept").chmod(0o600)
    (tmp_path / "gone").write_text("still here\n")
    before = tree(tmp_path)
    seen: list[str] = []

    def refuse(command: str) -> str:
        # Those before it are in place by then: a configuration is checked together with what it includes.
        seen.append((tmp_path / "kept").read_text())
        assert not (tmp_path / "gone").exists()
        return f"{command}: unknown directive"

    wanted = [
        mine(tmp_path / "kept", content=b"new\n"),
        Wanted(tmp_path / "gone", "absent"),
        mine(tmp_path / "deep/er", "directory"),
        mine(tmp_path / "main.conf", content=b"nonsense", validate="check -c %s"),
    ]
    with pytest.raises(ConfigFilesError, match=r"main.conf is refused, and nothing has been changed: check -c \S*/main.conf: unknown directive"):
        apply(changes(wanted), refuse)
    assert seen == ["new\n"]
    assert tree(tmp_path) == before


def test_a_refused_file_is_not_touched(tmp_path: Path) -> None:
    """Written once more with the same content it would look newer than what a unit has loaded."""
    path = tmp_path / "main.conf"
    path.write_text("old")
    before = path.stat().st_ino, path.stat().st_ctime_ns
    with pytest.raises(ConfigFilesError):
        apply(changes([mine(path, content=b"nonsense", validate="check %s")]), lambda dummy: "no")
    assert (path.stat().st_ino, path.stat().st_ctime_ns) == before


def test_a_file_system_that_gives_out_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_text("old\n")
    before = tree(tmp_path)
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "two":
            raise OSError(28, "No space left on device", str(target))
        return replace(self, target)

    pending = changes([mine(tmp_path / "one", content=b"new\n"), mine(tmp_path / "two", content=b"x")])
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigFilesError, match="two: No space left on device; nothing has been changed"):
        apply(pending, accept)
    assert tree(tmp_path) == before


def test_what_a_directory_is_not_to_hold_goes(tmp_path: Path) -> None:
    for name in ("redis.nft", "etcd.nft", ".draft"):
        (tmp_path / name).write_text("x")
    found = changes(extras(tmp_path, ["redis.nft", "nginx.nft"]))
    assert [change.wanted.path.name for change in found] == [".draft", "etcd.nft"]
    apply(found, lambda command: "")
    assert [path.name for path in tmp_path.iterdir()] == ["redis.nft"]
    assert extras(tmp_path / "missing", []) == []


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine\n")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    apply(changes([mine(tmp_path / "link", content=b"ours\n")]), accept)
    assert (tmp_path / "elsewhere").read_text() == "mine\n"
    assert not (tmp_path / "link").is_symlink()


def test_what_stands_in_the_way_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file\n")
    with pytest.raises(ConfigFilesError, match="etc is wanted as a directory, but something else is there"):
        changes([mine(tmp_path / "etc", "directory")])


def test_an_owner_that_is_missing_is_a_mistake_except_in_check_mode(tmp_path: Path) -> None:
    wanted = [Wanted(tmp_path / "x", owner="nobody-of-that-name")]
    with pytest.raises(ConfigFilesError, match="there is no user nobody-of-that-name"):
        changes(wanted)
    assert len(changes(wanted, check_mode=True)) == 1


def test_secrets_stay_out_of_differences_and_a_mode_alone_shows(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2")
    (tmp_path / "plain").write_text("same")
    (tmp_path / "plain").chmod(0o600)
    secret, plain = changes([mine(tmp_path / "key", content=b"hunter3", sensitive=True, mode=0o644), mine(tmp_path / "plain", content=b"same")])
    assert "hunter" not in json.dumps(secret.difference())
    assert secret.difference()["before"] != secret.difference()["after"]
    assert "0600" in plain.difference()["before"]
    assert "0644" in plain.difference()["after"]


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """Give a function that runs one task of the module against this machine."""
    (tmp_path / "templates").mkdir()

    def run(arguments: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        task = {"name": "Write", "sovereign.dify.config_files": arguments}
        plays = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": {"word": "hello"}, "tasks": [task]}]
        (tmp_path / "play.yml").write_text(json.dumps(plays))
        command = ["ansible-playbook", "--inventory=localhost,", f"--extra-vars=ansible_python_interpreter={sys.executable}", *options]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(
            [*command, str(tmp_path / "play.yml")], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
        )

    return run


def test_a_play_renders_templates_in_one_call_and_shows_no_secret(play: Any, tmp_path: Path) -> None:
    (tmp_path / "templates/tool.conf.j2").write_text("{{ ansible_managed | comment }}\n{% if true %}\n{{ word }} {{ extra }}\n{% endif %}\n")
    target = tmp_path / "etc"
    arguments = {
        **ME,
        "files": [
            {"src": "tool.conf.j2", "dest": f"{target}/tool.conf", "vars": {"extra": "{{ word }} again"}, "validate": "grep -q hello %s"},
            {"content": "password=hunter2\n", "dest": f"{target}/secret", "mode": "0600", "sensitive": True},
            {"content": "certificate\n", "followed_by": [f"{tmp_path}/key"], "dest": f"{target}/pair", "sensitive": True},
        ],
    }
    (tmp_path / "key").write_text("key that stays here\n")
    checked = play(arguments, "--check", "--diff")
    assert "changed=1" in checked.stdout
    assert not target.exists()
    done = play(arguments, "--diff", "-vvv")
    assert done.returncode == 0, done.stdout
    assert (target / "tool.conf").read_text() == "#\n# Ansible managed\n#\nhello hello again\n"
    assert (target / "pair").read_text() == "certificate\nkey that stays here\n"
    assert "+hello hello again" in done.stdout
    assert "hunter2" not in checked.stdout + done.stdout + done.stderr
    assert "changed=0" in play(arguments).stdout


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "exactly one of src, copy, content is needed, not none"),
        ({"src": "a.j2", "content": "b"}, "exactly one of src, copy, content is needed, not src, content"),
        ({"src": "missing.j2"}, "missing.j2 could not be found"),
        ({"content": "x", "mode": "rw"}, "'rw' is no mode"),
        ({"content": "x", "followed_by": ["/nowhere/key"]}, "/nowhere/key: No such file or directory; nothing has been changed"),
        ({"content": "x", "validate": "false"}, "nothing has been changed: exit code 1 from false"),
    ],
)
def test_a_mistake_is_named(play: Any, tmp_path: Path, item: dict[str, Any], message: str) -> None:
    run = play({**ME, "files": [{"dest": f"{tmp_path}/out", **item}]})
    assert run.returncode != 0
    assert message in " ".join(run.stdout.split()), run.stdout
    assert not (tmp_path / "out").exists()
