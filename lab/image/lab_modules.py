"""Keeps what Python compiles of Ansible's modules, in a lab: imported by every Python there, by a `.pth` beside it.

Ansible sends each module with what it imports as a zip, and Python compiles what comes out of one anew each time: half of a module's time, and
modules are most of what a lab computes. Kept by what it was compiled from.
"""

import _imp
import marshal
import os
import zipimport
from types import CodeType

CACHE = __file__.removesuffix(".py") + ".cache"
compile_source = zipimport._compile_source  # type: ignore[attr-defined]


def kept(path: str, source: bytes) -> CodeType:
    """Compile a source, or give what came of it before.

    Args:
        path: What to call it in a traceback.
        source: Python's text.
    """
    name = f"{CACHE}/{len(source)}-{_imp.source_hash(0, source).hex()}"
    code: CodeType
    try:
        with open(name, "rb") as found:
            return marshal.loads(found.read())  # type: ignore[no-any-return]
    except (OSError, EOFError, ValueError, TypeError):
        code = compile_source(path, source)
    try:
        with open(f"{name}.{os.getpid()}", "xb") as file:
            marshal.dump(code, file)
        os.rename(file.name, name)
    except OSError:
        pass  # another user's module, which is compiled as everywhere
    return code


zipimport._compile_source = kept  # type: ignore[attr-defined]
