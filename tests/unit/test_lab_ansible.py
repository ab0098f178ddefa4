"""What is kept between runs of Ansible is what Ansible would have worked out: the same results, the same errors, and nothing of yesterday."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.testing import PROJECT

COLLECTION = "ansible_collections/keeper/test/plugins"
MODULE = """
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.keeper.test.plugins.module_utils.word import WORD
module = AnsibleModule(argument_spec={}, supports_check_mode=True)
module.exit_json(word=WORD)
"""
PLAYBOOK = r"""
- hosts: localhost
  connection: local
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}", numbers: [1, 2]}
  tasks:
    - {keeper.test.say: , register: said}
    - debug: {msg: "{{ said.word }} {{ numbers | sum }} {{ 'a1' | regex_replace('^(.)1$', '\\1!') }} {% if numbers | length > 1 %}many{% endif %}"}
      when: numbers | first == 1
    - debug: {msg: "{{ numbers | there_is_no_such_filter }}"}
"""


@pytest.fixture
def run(tmp_path: Path) -> object:
    (tmp_path / COLLECTION / "modules").mkdir(parents=True)
    (tmp_path / COLLECTION / "module_utils").mkdir()
    (tmp_path / COLLECTION / "modules/say.py").write_text(MODULE)
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")

    def play(word: str) -> str:
        (tmp_path / COLLECTION / "module_utils/word.py").write_text(f'WORD = "{word}"\n')
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "play.yml"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if "msg" in line or "filter" in line)

    return play


def test_a_second_run_gives_the_same_and_one_after_a_change_gives_what_has_changed(run: object) -> None:
    assert callable(run)
    first = run("one")
    assert "one 3 a! many" in first
    assert "there_is_no_such_filter" in first
    assert run("one") == first
    assert "another 3 a! many" in run("another")


def test_it_is_in_force_here() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import jinja2; print(jinja2.Environment.compile.__module__)"], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "lab_ansible", f"{PROJECT}/lab/prepare.py venv has not been run"
