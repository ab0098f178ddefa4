# Ansible managed
"""End rsyslog at a moment at which its queues on disk are whole, and mend them before it starts.

``log_state.py stop <state directory> <process>``
``log_state.py start <state directory>``

Told to stop, rsyslog takes the lines that it is sending for sent (action.c of 8.2504: elements are COMM before actionCommit), and they are lost where
a store is down. So it is killed, and finds these lines in its queues when it starts again. What can go wrong by that is mended here:

- The index of a queue (``to_<target>.qi``) may be ahead of or behind its files. ``stop`` freezes rsyslog and looks, and kills it when they agree;
  ``start`` mends what a power failure left.
- imfile notes how far it has read a file before the queues have what it read. ``start`` goes back a little: what is read twice is sent twice, which
  a reader can see; what is left out, nobody can.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

BACK = 65536
"""Bytes of a file that are read once more at most: more than the 20 lines (maxSubmitAtOnce) that imfile may be ahead of the queues."""
LEFT = "left"
"""Directory for files of queues that no index leads to any more."""
TRIES = 100
"""Times that ``stop`` looks, 50 ms apart."""


class IndexFaultError(ValueError):
    """An index that cannot be read."""


@dataclass(frozen=True)
class Index:
    """The index of a queue.

    Attributes:
        name: First part of the names of its files.
        size: Lines in the queue.
        written: Number of the file that is written to, and where it ends.
        read: Number of the file that holds the oldest line that is not done, and where that begins.
    """

    name: str
    size: int
    written: tuple[int, int]
    read: tuple[int, int]


def index(path: Path) -> Index:
    """Read the index of a queue.

    Raises:
        IndexFaultError: It is none.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    found = {name: re.findall(rf"^\+{name}:\d+:\d+:(.*?):$", text, re.MULTILINE) for name in ("iQueueSize", "iCurrFNum", "iCurrOffs", "pszFName")}
    try:
        [size] = found["iQueueSize"]
        written, read = zip(map(int, found["iCurrFNum"]), map(int, found["iCurrOffs"]), strict=True)
        return Index(found["pszFName"][0], int(size), written, read)
    except (ValueError, IndexError) as error:
        raise IndexFaultError(f"{path.name}: {error}") from error


def file_of(directory: Path, name: str, number: int) -> Path:
    """Give the path of a queue's file."""
    return directory / f"{name}.{number:08}"


def length(path: Path) -> int:
    """Give the length of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def agrees(directory: Path, queue: Index) -> bool:
    """Tell whether a queue's files are as its index says."""
    whole = length(file_of(directory, queue.name, queue.written[0])) == queue.written[1]
    number, offset = queue.read
    return whole and (
        length(file_of(directory, queue.name, number)) >= offset and (queue.size == 0 or file_of(directory, queue.name, number).exists())
    )


def whole(directory: Path) -> bool:
    """Tell whether all queues agree with their indexes."""
    try:
        return all(agrees(directory, index(path)) for path in directory.glob("*.qi"))
    except (IndexFaultError, OSError):
        return False


def stop(directory: Path, process: int) -> bool:
    """Kill rsyslog when its queues are whole, or after five seconds.

    Args:
        directory: Its state directory.
        process: Its process.

    Returns:
        Whether they were whole.
    """
    for dummy in range(TRIES):
        os.kill(process, signal.SIGSTOP)
        if whole(directory):
            os.kill(process, signal.SIGKILL)
            return True
        os.kill(process, signal.SIGCONT)
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False


def mend(path: Path) -> str:
    """Mend a queue that rsyslog would give up.

    Args:
        path: Its index.

    Returns:
        What has been done; nothing where it was whole.
    """
    directory = path.parent
    try:
        queue = index(path)
    except IndexFaultError as error:
        set_aside(path)
        return f"the index cannot be read ({error}); the queue begins anew"
    end = file_of(directory, queue.name, queue.written[0])
    if length(end) > queue.written[1]:
        os.truncate(end, queue.written[1])
        if agrees(directory, queue):
            return "its last file had more than the index says: cut"
    if agrees(directory, queue):
        return ""
    set_aside(path)
    return "its files are not as the index says; the queue begins anew"


def set_aside(path: Path) -> None:
    """Move an index and all files of its queue away."""
    away = path.parent / LEFT
    away.mkdir(mode=0o700, exist_ok=True)
    for file in [path, *sorted(path.parent.glob(f"{path.stem}.[0-9]*"))]:
        file.replace(away / file.name)


def rewound(path: Path, offset: int) -> int:
    """Give the beginning of a line, at most ``BACK`` bytes before an offset; the same offset where none begins in between.

    Args:
        path: The file.
        offset: Where reading has come to.
    """
    begin = max(0, offset - BACK)
    if begin == 0:
        return 0
    with path.open("rb") as stream:
        stream.seek(begin)
        end = stream.read(offset - begin).find(b"\n")
    return offset if end < 0 else begin + end + 1


def rewind(state: Path) -> None:
    """Rewind imfile's note of a file, where that is still the one that was read."""
    told = json.loads(state.read_text(encoding="utf-8"))
    path, offset = Path(told["filename"]), int(told["curr_offs"])
    status = path.stat()
    if str(status.st_ino) != state.name.split(":")[1] or offset > status.st_size:
        return  # rotated, or made anew
    told["curr_offs"] = told["strt_offs"] = rewound(path, offset)
    draft = state.with_name(f".{state.name}")
    draft.write_text(json.dumps(told), encoding="utf-8")
    draft.chmod(0o600)
    draft.replace(state)


def start(directory: Path) -> list[str]:
    """Mend all queues and rewind all files; what cannot be stays as it is.

    Args:
        directory: rsyslog's state directory.

    Returns:
        What has been done that an operator should know.
    """
    said = [f"{path.stem}: {done}" for path in sorted(directory.glob("*.qi")) if (done := mend(path))]
    for state in sorted(directory.glob("imfile-state:*")):
        try:
            rewind(state)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            said.append(f"{state.name}: {error!r}")
    return said


def main(action: str, directory: str, process: str = "") -> None:
    """Act, and tell the journal what is out of the ordinary."""
    if action == "stop":
        if not stop(Path(directory), int(process)):
            print("rsyslog's queues were not whole when it was killed")
    else:
        for line in start(Path(directory)):
            print(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
