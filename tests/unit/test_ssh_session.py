"""Which SSH connection a process came through."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.ssh_session import Session, current, parse


def process(proc: Path, pid: int, parent: int, environment: str, name: str = "sh") -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0")
    (proc / str(pid) / "environ").write_bytes(environment.encode())


@pytest.mark.parametrize(
    ("text", "session"),
    [
        ("198.18.1.1 43210 198.18.1.11 2222", Session("198.18.1.1", "198.18.1.11", 2222)),
        ("fe80::1%eth0 43210 fe80::2%eth0 22", Session("fe80::1", "fe80::2", 22)),
        ("::ffff:198.18.1.1 43210 ::ffff:198.18.1.11 22", Session("198.18.1.1", "198.18.1.11", 22)),
        ("UNKNOWN 65535 UNKNOWN 65535", None),
        ("198.18.1.1 43210", None),
        ("", None),
    ],
)
def test_the_variable_is_understood(text: str, session: Session | None) -> None:
    assert parse(text) == session


def test_the_nearest_ancestor_that_has_it_counts(tmp_path: Path) -> None:
    process(tmp_path, 40, 30, "PATH=/bin\0", name="python3 (x) y")
    process(tmp_path, 30, 20, "SUDO_USER=admin\0", name="sudo")
    process(tmp_path, 20, 10, "A=1\0SSH_CONNECTION=198.18.1.1 43210 198.18.1.11 2222\0")
    process(tmp_path, 10, 1, "SSH_CONNECTION=203.0.113.1 43210 198.18.1.11 22\0")
    assert current(tmp_path, 40) == Session("198.18.1.1", "198.18.1.11", 2222)


def test_a_process_without_one_has_none(tmp_path: Path) -> None:
    process(tmp_path, 40, 1, "PATH=/bin\0")
    assert current(tmp_path, 40) is None
    assert current(tmp_path, 41) is None


def test_what_the_process_itself_has_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "198.18.1.1 43210 198.18.1.11 2222")
    assert current() == Session("198.18.1.1", "198.18.1.11", 2222)
