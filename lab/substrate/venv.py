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
# Kept is what Python compiles of modules that run on the controller, and what Ansible works out in each run. Noted is, on demand, what is read.
KEEPERS = (LAB / "substrate" / "lab_reads.py", LAB / "image" / "lab_modules.py", LAB / "substrate" / "lab_ansible.py")
DISTRIBUTION = Path("/usr/bin/python3")


def prepare() -> str | None:
    """Make the environment and install exactly what the lock file names."""
    base, version = _base()
    wanted = digest(LOCK.read_text(), *(keeper.read_text() for keeper in KEEPERS), str(base), version, str(VENV))
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return None
    if not _works(version):
        shutil.rmtree(VENV, ignore_errors=True)
        say(f"making {VENV} with Python {version.split()[0]} ({base})")
        run([base, "-m", "venv", VENV])
    # Written last and removed first: an interrupted run is taken up by the next one.
    STAMP.unlink(missing_ok=True)
    requirement = _requirement("uv")
    run([python(), "-m", "pip", "install", "-q", "--require-hashes", "-r", "/dev/stdin"], stdin=requirement)
    say("installing what requirements-dev.txt names")
    run([VENV / "bin" / "uv", "pip", "install", "--exact", "--require-hashes", "-r", LOCK], env=uv_environment())
    (packages,) = (VENV / "lib").glob("python3*/site-packages")
    for keeper in KEEPERS:
        shutil.copy(keeper, packages)
        (packages / f"{keeper.stem}.pth").write_text(f"import {keeper.stem}\n")
        cache = packages / f"{keeper.stem}.cache"
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
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


def _base() -> tuple[Path, str]:
    """Return the Python to make the environment of, and what it says of its version.

    Of the same release as the one that runs this, the distribution's is taken if it can: it is compiled for speed, and one that was compiled without
    takes half as long again for all that Ansible and the linters do.
    """
    release = f"{sys.version_info.major}.{sys.version_info.minor}."
    try:
        version = run([DISTRIBUTION, "-c", "import ensurepip, sys; print(sys.version)"]).strip()
    except StepError:
        version = ""
    return (DISTRIBUTION, version) if version.startswith(release) else (Path(sys.executable), sys.version)


def _works(version: str) -> bool:
    """Tell whether the environment is there and made by a Python of this version (an upgrade of the system's breaks it)."""
    if not (VENV / "bin" / "python").exists():
        return False
    try:
        return run([python(), "-c", "import sys, pip; print(sys.version)"]).strip() == version
    except StepError:
        return False


def _requirement(name: str) -> str:
    """Return one package's lines of the lock file, with its hashes."""
    match = re.search(rf"^{name}==.*?(?=^[a-z]|\Z)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    if match is None:
        raise StepError(f"{LOCK.name} names no {name}")
    return match[0]
