"""How the log shipper is ended and begun: queues that are whole, and files that are read a little once more."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.role_program import load

state = load("log_shipper", "log_state")

# As rsyslog 8.2504 has written it.
INDEX = """<OPB:1:qqueue:1:
+iQueueSize:2:1:{size}:
+tVars.disk.sizeOnDisk:2:7:4603683:
>End
.
<Obj:1:strm:1:
+iCurrFNum:2:1:{written[0]}:
+pszFName:1:6:to_one:
+iMaxFiles:2:8:10000000:
+bDeleteOnClose:2:1:0:
+iCurrOffs:2:7:{written[1]}:
+inode:2:1:0:
+strtOffs:2:7:3247703:
>End
.
<Obj:1:strm:1:
+iCurrFNum:2:1:{read[0]}:
+pszFName:1:6:to_one:
+iCurrOffs:2:7:{read[1]}:
+strtOffs:2:7:4603683:
+bPrevWasNL:2:1:0:
>End
.
"""


def queue(directory: Path, size: int, written: tuple[int, int], read: tuple[int, int], **files: int) -> Path:
    path = directory / "to_one.qi"
    path.write_text(INDEX.format(size=size, written=written, read=read))
    for number, length in files.items():
        (directory / f"to_one.{int(number[1:]):08}").write_bytes(b"x" * length)
    return path


def test_an_index_is_read(tmp_path: Path) -> None:
    found = state.index(queue(tmp_path, 7, (3, 500), (2, 100)))
    assert (found.name, found.size, found.written, found.read) == ("to_one", 7, (3, 500), (2, 100))


@pytest.mark.parametrize(
    ("size", "written", "read", "files"),
    [
        (0, (2, 500), (2, 500), {"f2": 500}),
        (9, (3, 500), (2, 100), {"f2": 900, "f3": 500}),
        (0, (1, 0), (1, 0), {}),
        (9, (2, 0), (1, 100), {"f1": 900}),
    ],
)
def test_a_whole_queue_is_left_alone(tmp_path: Path, size: int, written: tuple[int, int], read: tuple[int, int], files: dict[str, int]) -> None:
    path = queue(tmp_path, size, written, read, **files)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert state.whole(tmp_path)
    assert state.mend(path) == ""
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_was_written_after_the_index_is_cut(tmp_path: Path) -> None:
    path = queue(tmp_path, 9, (2, 500), (2, 100), f2=517)
    assert not state.whole(tmp_path)
    assert state.mend(path) == "its last file had more than the index says: cut"
    assert state.whole(tmp_path)
    assert (tmp_path / "to_one.00000002").stat().st_size == 500


def test_a_queue_whose_file_is_gone_begins_anew(tmp_path: Path) -> None:
    # As seen after a kill: the index leads to a file that had not been made yet.
    path = queue(tmp_path, 4, (3, 0), (3, 0), f2=900)
    assert not state.whole(tmp_path)
    assert state.mend(path) == "its files are not as the index says; the queue begins anew"
    assert [file.name for file in tmp_path.iterdir()] == ["left"]
    assert sorted(file.name for file in (tmp_path / "left").iterdir()) == ["to_one.00000002", "to_one.qi"]


@pytest.mark.parametrize("text", ["", "garbage", INDEX.split("<Obj")[0]])
def test_an_index_that_cannot_be_read_begins_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "to_one.qi"
    path.write_text(text)
    assert not state.whole(tmp_path)
    assert state.mend(path).endswith("the queue begins anew")
    assert not path.exists()


def note(directory: Path, path: Path, offset: int, inode: int | None = None) -> Path:
    told = {"filename": str(path), "prev_was_nl": 0, "curr_offs": offset, "strt_offs": offset}
    found = directory / f"imfile-state:{path.stat().st_ino if inode is None else inode}:d6827169dba1ef24"
    found.write_text(json.dumps(told))
    return found


def test_a_file_is_rewound_to_the_beginning_of_a_line(tmp_path: Path) -> None:
    log = tmp_path / "books.log"
    lines = [b"line %06d of it\n" % number for number in range(20000)]
    log.write_bytes(b"".join(lines))
    offset = sum(map(len, lines[:15000]))
    found = note(tmp_path, log, offset)
    assert state.start(tmp_path) == []
    told = json.loads(found.read_text())
    assert told["curr_offs"] == told["strt_offs"]
    assert offset - state.BACK <= told["curr_offs"] < offset - state.BACK + len(lines[0]) + 1
    assert log.read_bytes()[told["curr_offs"] - 1 : told["curr_offs"] + 4] == b"\nline"
    assert told["filename"] == str(log)


def test_a_short_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "books.log"
    log.write_bytes(b"one\ntwo\n")
    found = note(tmp_path, log, 8)
    state.start(tmp_path)
    assert json.loads(found.read_text())["curr_offs"] == 0


def test_a_file_that_is_another_one_now_is_left_to_rsyslog(tmp_path: Path) -> None:
    log = tmp_path / "books.log"
    log.write_bytes(b"one\n")
    for found in (note(tmp_path, log, 4, inode=1), note(tmp_path, log, 4711)):
        before = found.read_text()
        assert state.start(tmp_path) == []
        assert found.read_text() == before


def test_a_note_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "imfile-state:1:x").write_text("{")
    [said] = state.start(tmp_path)
    assert said.startswith("imfile-state:1:x: ")


def ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(10)


def test_it_is_killed_when_its_queues_are_whole(tmp_path: Path) -> None:
    queue(tmp_path, 9, (2, 500), (2, 100), f2=510)
    # Another process mends the file meanwhile, as rsyslog would when it goes on.
    mender = subprocess.Popen(["sh", "-c", f"sleep 0.4; truncate -s 500 {tmp_path}/to_one.00000002"])
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = time.monotonic()
    assert state.stop(tmp_path, process.pid)
    assert ended(process) == -9
    assert 0.2 < time.monotonic() - began < 5
    assert mender.wait(10) == 0


def test_it_is_killed_in_the_end_whatever_its_queues_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "TRIES", 3)
    queue(tmp_path, 9, (2, 500), (2, 100), f2=510)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert not state.stop(tmp_path, process.pid)
    assert ended(process) == -9
