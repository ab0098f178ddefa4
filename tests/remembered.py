"""Which of Molecule's scenarios have passed on this machine with the very files that they consist of.

Such a one would only pass again: it is not run for a week, unless ``TEST_AGAIN=1`` says so. What a scenario consists of is what was read while it
passed (``lab/substrate/lab_reads.py`` notes it), with the names in each directory that was listed, and what is not read by a Python of ours: the
scenario's own directory and what makes the hosts.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from tests import newest

PROJECT = Path(__file__).resolve().parent.parent
ALWAYS = ("molecule/shared", ".config/molecule", "lab/image", "lab/substrate", "ansible.cfg", "requirements-dev.txt")
"""What a scenario consists of, whatever it reads: images are made of it before, and kept."""
OF_ONE = {
    "dify": ("lab/standins/dify",),
    newest.SCENARIO: ("tests/newest.py", "tests/tools/newest.txt"),
    "vllm": ("lab/substrate/model.py", "lab/substrate/quantised.py", "lab/substrate/tensors.py", "lab/substrate/wheelhouse.py"),
    "log_store": ("lab/substrate/victorialogs.py",),
    "log_shipper": ("lab/substrate/victorialogs.py", "lab/substrate/search_engine.py"),
}
"""Likewise, for these alone: what is made before of what runs on their hosts, and which releases of Ansible one runs under."""
WHOLE = {"standins": ("tests/standins", "lab/standins/dify")}
"""What is no scenario of Molecule, and all that it consists of beside what makes the images."""
KEPT_SECONDS = 7 * 24 * 3600
"""Distributions move on: what passed longer ago is run again."""
IGNORED = ("__pycache__", ".state", ".cache", ".git")
LISTED = ("roles", "molecule", "playbooks", "inventories")
"""Where a new file can be taken without being named. Plugins are named by who uses them, though Ansible lists their directories."""

LOADED = ("plugins/action/", "plugins/filter/", "plugins/lookup/")
"""Plugins that are loaded, and so read, whether somebody uses them or not."""


def _counts(path: Path) -> bool:
    """Tell whether a path of the project decides how something runs."""
    return path.suffix not in (".md", ".pyc") and not set(path.relative_to(PROJECT).parts) & set(IGNORED)


def _files(root: Path) -> Iterator[Path]:
    """Give the files at or below a path that decide how something runs."""
    for path in [root] if root.is_file() else root.rglob("*"):
        if path.is_file() and _counts(path):
            yield path


def _state(name: str) -> str:
    """Give a hash of what a file holds, or of a directory's names; nothing if it is not there.

    Args:
        name: Its path from the project, with a slash at its end if it is a directory.
    """
    path = PROJECT / name
    if name.endswith("/"):
        names = sorted(child.name for child in path.iterdir() if _counts(child)) if path.is_dir() else []
        return hashlib.sha256("\0".join(names).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _of_others(scenario: str, name: str) -> bool:
    """Tell whether a file is one of those that only other scenarios consist of."""
    owners = {owner for owner, roots in OF_ONE.items() if name.startswith(roots)}
    return bool(owners) and scenario not in owners


def always(scenario: str) -> dict[str, str]:
    """Give the state of what a scenario consists of, whatever it reads.

    Args:
        scenario: Its name.

    Returns:
        Hashes by path.
    """
    own = (*WHOLE.get(scenario, (f"molecule/{scenario}",)), *OF_ONE.get(scenario, ()))
    names = {str(path.relative_to(PROJECT)) for root in (*own, *ALWAYS) for path in _files(PROJECT / root)}
    return {name: _state(name) for name in sorted(names) if name.startswith(own) or not _of_others(scenario, name)}


def _imported(name: str, known: Collection[str]) -> set[str]:
    """Give those of the known files of the collection that a plugin imports."""
    found = set()
    package = Path(name).with_suffix("").parts
    for node in ast.walk(ast.parse((PROJECT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = list(package[: -node.level]) if node.level else []
            module = [*above, *(node.module or "").split(".")]
            # What is imported from a package may be a module of it.
            modules = [module, *([*module, alias.name] for alias in node.names)]
        else:
            continue
        for words in modules:
            inside = words[words.index("plugins") :] if "plugins" in words else []
            for depth in range(1, len(inside) + 1):
                found |= {f"{'/'.join(inside[:depth])}.py", f"{'/'.join(inside[:depth])}/__init__.py"} & set(known)
    return found


def _used(names: Collection[str]) -> set[str]:
    """Leave out what was read and is used by nobody: the collection's plugins are loaded before any of them is wanted (``preload.py``).

    Left out are the plugins of such kinds whose names stand in nothing else that was read and used, and what they alone import.

    Args:
        names: Paths of the files that were read.
    """
    plugins = {name for name in names if name.startswith("plugins/") and name.endswith(".py") and (PROJECT / name).is_file()}
    loaded = {name for name in plugins if name.startswith(LOADED)}
    texts = [PROJECT / name for name in names if name not in plugins and Path(name).suffix in (".yml", ".yaml", ".j2", ".py", ".cfg")]
    words = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in texts if path.is_file())))
    unused, new = loaded, plugins - loaded
    while new:
        for name in new:
            words |= set(re.findall(r"sovereign\.dify\.(\w+)", (PROJECT / name).read_text(encoding="utf-8")))
        new = {name for name in unused if Path(name).stem in words}
        unused = unused - new

    def reached(start: set[str]) -> set[str]:
        found, left = set(start), list(start)
        while left:
            new = _imported(left.pop(), plugins) - found
            found |= new
            left += new
        return found

    others = {name for name in plugins - unused if not name.startswith("plugins/module_utils/") or Path(name).stem in words}
    return set(names) - (reached(unused) - reached(others))


def _read(record: Path | None) -> set[str]:
    """Give the paths that were noted while a scenario ran, a line each; none where nothing was."""
    return set(record.read_text().splitlines()) if record and record.is_file() else set()


def consists_of(scenario: str, record: Path | None) -> dict[str, str]:
    """Give the state of everything that a scenario consists of.

    Args:
        scenario: Its name.
        record: What was noted while it ran: a path a line.

    Returns:
        Hashes by path; a directory's, with a slash at its end, is of its names.
    """
    found = always(scenario)
    for name in sorted(_read(record)):
        if not _counts(PROJECT / name) or name in found:
            continue
        if not name.endswith("/") or name.startswith(tuple(f"{root}/" for root in LISTED)):
            found[name] = _state(name)
    return found


class Passed:
    """What has passed, remembered beside the lab's other caches."""

    def __init__(self, directory: Path | None = None) -> None:
        """Remember in a directory."""
        cache = os.environ.get("SOVEREIGN_LAB_CACHE") or "~/.cache/sovereign-dify-lab"
        self.directory = directory or Path(cache).expanduser() / "passed"

    def when(self, scenario: str) -> str:
        """Give the day on which a scenario has passed as it is now; nothing if it has to be run.

        Args:
            scenario: Its name.
        """
        file = self.directory / scenario
        if os.environ.get("TEST_AGAIN") == "1" or not file.is_file():
            return ""
        passed = file.stat().st_mtime
        try:
            before = dict(json.loads(file.read_text()))
        except (TypeError, ValueError):
            return ""  # cut while it was written, or of another release of these tests
        # Both by the files of today: what decides what is used belongs to them itself.
        now = {name: _state(name) for name in _used(before) if not _of_others(scenario, name)} | always(scenario)
        if time.time() - passed > KEPT_SECONDS or now != {name: before.get(name, "") for name in now}:
            return ""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(passed))

    def note(self, scenario: str, record: Path | None, began: float) -> None:
        """Remember that a scenario has passed, unless one of its files has changed meanwhile, or nothing was noted of what it read.

        Args:
            scenario: Its name.
            record: What was noted while it ran; needed of Molecule's scenarios alone.
            began: When it began, in seconds since 1970.
        """
        found = consists_of(scenario, record)
        files = [PROJECT / name for name, state in found.items() if state and not name.endswith("/")]
        # Some scenarios have that of another one, by a link.
        converge = (PROJECT / f"molecule/{scenario}/converge.yml").resolve()
        noted = scenario in WHOLE or str(converge.relative_to(PROJECT.resolve())) in _read(record)
        if noted and all(path.stat().st_mtime < began for path in files):
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / scenario).write_text(json.dumps(found, indent=1))
