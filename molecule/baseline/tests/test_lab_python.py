"""What runs modules in these tests runs a program as Python does, which runs them at users' hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils import ansible_release

# What a program may notice of who runs it, and what others notice of it.
PROGRAMS = {
    "arguments and paths": "import sys; print(sys.argv, sys.path, sys.executable, __name__)",
    "directory, mask and environment": "import os; print(os.getcwd(), oct(os.umask(0)), sorted(os.environ.items()))",
    "descriptors": "import os; print(sorted(os.listdir('/proc/self/fd')), os.getsid(0) != 1)",
    "standard input": "import sys; print(repr(sys.stdin.read()))",
    "time zone": "import time; print(time.tzname)",
    "text beyond ASCII": "print('\\u00e4\\u4e2d')",
    "a code": "raise SystemExit(7)",
    "a code above one byte": "raise SystemExit(256 + 3)",
    "no code": "raise SystemExit",
    "words in place of a code": "raise SystemExit('sorry')",
    "an exception": "1 / 0",
    "a signal": "import os; os.kill(os.getpid(), 15)",
    "what is done at the end": "import atexit; atexit.register(print, 'end'); print('begin')",
    "a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()",
    "much output": "import sys; sys.stdout.write('x' * 300000)",
    "a child that stays": "import subprocess; subprocess.Popen(['sleep', '1'], stdin=-3, stdout=-3, stderr=-3); print('gone')",
    "what has been closed": "import os; os.close(1)",
}


MARK = f'# "_ansible_version": "{ansible_release.__version__}"'
"""By which it knows a module of the Ansible that it has imported."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_run_as_python_runs_it(on: Any, name: str) -> None:
    def told(python: str) -> tuple[int, str, str]:
        surroundings = "cd /usr/share && umask 027 && export TZ=Asia/Shanghai LC_ALL=C.UTF-8"
        run = on("debian13").run(f"{surroundings} && printf %%s %s | %s", f"{MARK}\n{PROGRAMS[name]}", python)
        # Of a traceback, its end.
        return run.rc, run.stdout, run.stderr.splitlines()[-1] if run.stderr else ""

    assert told("/usr/local/bin/lab-python3") == told("/usr/bin/python3")


def test_it_is_run_by_the_one_that_has_imported_everything(on: Any) -> None:
    program = 'import os, sys; print("ansible.module_utils.basic" in sys.modules, os.getppid())'
    server = on("debian13").check_output("systemctl show --property=MainPID --value lab-python")
    asked = "printf %%s %s | /usr/local/bin/lab-python3"
    assert on("debian13").check_output(asked, f"{MARK}\n{program}") == f"True {server}"
    # What is of another release has its own.
    assert on("debian13").check_output(asked, program).startswith("False ")
    on("debian13").check_output("systemctl stop lab-python")
    try:
        assert on("debian13").check_output(asked, f"{MARK}\n{program}").startswith("False ")
    finally:
        on("debian13").check_output("systemctl start lab-python")
