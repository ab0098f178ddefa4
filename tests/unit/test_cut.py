"""Runs that are cut, with a playbook of four tasks."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from lab.cut import cut, length

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - {name: Look, ansible.builtin.debug: {msg: something}}
    - {name: One, ansible.builtin.command: {cmd: "touch {{ directory }}/one", creates: "{{ directory }}/one"}}
    - {name: Two, ansible.builtin.command: {cmd: "touch {{ directory }}/two", creates: "{{ directory }}/two"}}
    - {name: Three, ansible.builtin.command: {cmd: "{{ last }}"}}
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "play.yml").write_text(PLAY)
    return [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory=localhost,", "--connection=local", str(tmp_path / "play.yml"),
            f"--extra-vars=ansible_python_interpreter={sys.executable} directory={tmp_path} last=true"]  # fmt: skip


@pytest.mark.parametrize(("at", "there"), [(1, ["one"]), (2, ["one"]), (3, ["one", "two"]), (0, ["one", "two"])])
def test_a_run_is_cut_after_a_task_that_has_changed_something(command: list[str], tmp_path: Path, at: int, there: list[str]) -> None:
    done = cut(command, at)
    assert done.code == (-signal.SIGKILL if at else 0), done.said
    assert sorted(path.name for path in tmp_path.iterdir() if not path.suffix) == there
    assert [name for number, name in done.changing] == [name.title() for name in there]


def test_a_run_that_fails_by_itself_is_not_taken_for_one_that_was_cut(command: list[str]) -> None:
    assert cut([*command[:-1], f"{command[-1].removesuffix('true')}false"], 4).code > 0


def test_the_tasks_of_a_playbook_are_counted(command: list[str]) -> None:
    assert length(command) == len(PLAY.split("- {name: ")) - 1
