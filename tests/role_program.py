"""Load a program that a role installs on hosts, to test its parts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PROJECT = Path(__file__).resolve().parent.parent


def load(role: str, name: str) -> ModuleType:
    """Import a program as a module.

    Args:
        role: The role that installs it.
        name: Its file's name in ``files/``, without ``.py``.
    """
    return load_file(f"roles/{role}/files/{name}.py")


def load_file(path: str) -> ModuleType:
    """Import any program of the project as a module.

    Args:
        path: Its file, from the project's root.
    """
    name = Path(path).stem
    specification = importlib.util.spec_from_file_location(name, PROJECT / path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    # A dataclass looks its own module up.
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
