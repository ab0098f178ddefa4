"""Runs Ansible's modules in a lab's hosts, each in a process that is forked from this one, which has imported what all of them import.

That is three quarters of a module's processor time, and modules are most of what a lab computes. `lab_python3` hands over what a module is given:
standard input with the program, the other two, directory, environment. What is imported here is a copy of the controller's own Ansible; a program
of another release is run by Python as everywhere, and so is everything for other users than root.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import io
import locale
import os
import select
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

PLACE = "/run/lab-python"
PYTHON = "/usr/bin/python3"
COPY = str(Path(__file__).with_name("ansible-core"))
IMPORTED = (
    *("base64", "dataclasses", "datetime", "difflib", "grp", "hashlib", "http.client", "pwd", "resource", "runpy", "shutil", "ssl", "subprocess"),
    *("tempfile", "typing", "urllib.request", "uuid", "zipfile"),
    *("ansible.module_utils.basic", "ansible.module_utils._internal._ansiballz._loader"),
    *("ansible.module_utils._internal._json._profiles._module_legacy_m2c", "ansible.module_utils._internal._json._profiles._module_legacy_c2m"),
)


class Packages(list[str]):
    """Where parts of the package `ansible` lie: in the copy, and in the archive that a module came in."""

    def __iter__(self) -> Iterator[str]:
        """Look at the archive as it is named now."""
        yield f"{COPY}/ansible"
        yield from (f"{place}/ansible" for place in sys.path if place.endswith(".zip"))


def load() -> str:
    """Import what modules import; give the release of the copy."""
    sys.path[0] = COPY
    ansible = importlib.import_module("ansible")
    for name in IMPORTED:
        importlib.import_module(name)
    ansible.__path__ = Packages()
    del sys.path[0]
    return str(ansible.__version__)


def become(connection: socket.socket) -> None:
    """Take the standard streams, the directory and the environment of who asks."""
    length, given, _, _ = socket.recv_fds(connection, 4, 3)
    told = b""
    while len(told) < int.from_bytes(length, "big"):
        told += connection.recv(65536)
    directory, umask, environment = ast.literal_eval(told.decode())
    os.setsid()
    for number, stream in enumerate(given):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    os.chdir(directory)
    os.umask(umask)
    os.environ.clear()
    os.environb.update(environment)
    time.tzset()
    locale.setlocale(locale.LC_CTYPE, "")
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8", "surrogateescape")
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(io.FileIO(2, "w", closefd=False)), "utf-8", "backslashreplace", line_buffering=True)
    sys.argv = [""]
    sys.path.insert(0, "")


def run(release: str) -> NoReturn:
    """Run the program on standard input as Python would."""
    program = sys.stdin.buffer.read()
    if f'"_ansible_version": "{release}"'.encode() not in program:
        kept = os.memfd_create("program")
        os.write(kept, program)
        os.lseek(kept, 0, os.SEEK_SET)
        os.dup2(kept, 0)
        os.execv(PYTHON, [PYTHON])  # noqa: S606
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    code = 0
    try:
        exec(compile(program, "<stdin>", "exec", dont_inherit=True), main.__dict__)  # noqa: S102 - what this is for
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # All that an end of Python is to those outside. Taking apart what was imported is left out: it costs as much as the module itself.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(release: str) -> None:
    """Fork for each who asks, and tell each how his ended."""
    Path(PLACE).unlink(missing_ok=True)
    os.umask(0o77)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(PLACE)
    listening.listen(64)
    awaited: dict[int, tuple[int, socket.socket]] = {}
    events = select.poll()
    events.register(listening, select.POLLIN)
    while True:
        for ready, _ in events.poll():
            if ready == listening.fileno():
                connection, _ = listening.accept()
                child = os.fork()
                if not child:
                    become(connection)
                    # Their numbers belong to others from now on.
                    for own in (listening, connection, *(other for _, other in awaited.values())):
                        own.detach()
                    run(release)
                ended = os.pidfd_open(child)
                awaited[ended] = (child, connection)
                events.register(ended, select.POLLIN)
            else:
                child, connection = awaited.pop(ready)
                events.unregister(ready)
                os.close(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                # Who asked may be gone.
                with connection, contextlib.suppress(OSError):
                    connection.sendall(code.to_bytes(4, "big", signed=True))


if __name__ == "__main__":
    loaded = load()
    # Nobody who is forked looks through it for garbage, which would copy it.
    gc.freeze()
    serve(loaded)
