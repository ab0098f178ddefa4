"""Step venv: the Python environment that the lab, the tests and the linters run in."""

import ast
import os
import re
import shutil
import sys
from pathlib import Path

from .steps import LAB, REPO, StepError, digest, run, say

VENV = REPO / ".venv"
LOCK = REPO / "requirements-dev.txt"
STAMP = VENV / ".lab-stamp"
MODULES = LAB / "image" / "lab_modules.py"


def prepare() -> str | None:
    """Make the environment and install exactly what the lock file names."""
    wanted = digest(LOCK.read_text(), MODULES.read_text(), sys.version, str(VENV))
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return None
    if not _works():
        shutil.rmtree(VENV, ignore_errors=True)
        say(f"making {VENV} with Python {sys.version.split()[0]}")
        run([sys.executable, "-m", "venv", VENV])
    # Written last and removed first: an interrupted run is taken up by the next one.
    STAMP.unlink(missing_ok=True)
    requirement = _requirement("uv")
    run([python(), "-m", "pip", "install", "-q", "--require-hashes", "-r", "/dev/stdin"], stdin=requirement)
    say("installing what requirements-dev.txt names")
    run([VENV / "bin" / "uv", "pip", "install", "--exact", "--require-hashes", "-r", LOCK], env=uv_environment())
    # Of modules that run on the controller, too, what was compiled is kept.
    (packages,) = (VENV / "lib").glob("python3*/site-packages")
    shutil.copy(MODULES, packages)
    (packages / MODULES.with_suffix(".pth").name).write_text(f"import {MODULES.stem}\n")
    (packages / MODULES.with_suffix(".cache").name).mkdir(exist_ok=True)
    STAMP.write_text(wanted)
    return f"installed {LOCK.read_text().count('==')} packages"


def python() -> Path:
    """Return the environment's Python; it must be there."""
    path = VENV / "bin" / "python"
    if not path.exists():
        raise StepError("there is no .venv: run 'python3 lab/prepare.py venv' first")
    return path


def uv_environment() -> dict[str, str]:
    """Return the variables that make uv use the sources and trust of this machine's pip, as far as uv has no own."""
    settings = {"VIRTUAL_ENV": str(VENV), "UV_SYSTEM_CERTS": "true"}
    configured = run([python(), "-m", "pip", "config", "list"])
    if not os.environ.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
        # The last line wins in pip: environment after files, the user's after the system's.
        for match in re.finditer(r"^[^=\s]+\.index-url=(.+)$", configured, re.MULTILINE):
            settings["UV_DEFAULT_INDEX"] = str(ast.literal_eval(match[1]))
    return settings


def _works() -> bool:
    """Tell whether the environment is there and made by this Python (an upgrade of the system's breaks it)."""
    if not (VENV / "bin" / "python").exists():
        return False
    try:
        return run([python(), "-c", "import sys, pip; print(sys.version)"]).strip() == sys.version
    except StepError:
        return False


def _requirement(name: str) -> str:
    """Return one package's lines of the lock file, with its hashes."""
    match = re.search(rf"^{name}==.*?(?=^[a-z]|\Z)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    if match is None:
        raise StepError(f"{LOCK.name} names no {name}")
    return match[0]
