"""Programs that print metrics of the data tier: what they read, and what they make of it."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def program(path: str) -> ModuleType:
    """Load a program of a role."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), PROJECT / f"roles/{path}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# The library that the role copies beside its programs.
sys.path.insert(0, str(PROJECT / "plugins/module_utils"))
alarms = program("etcd/monitoring/alarms")
sessions = program("pgpool/monitoring/sessions")
swift = program("object_storage/monitoring/swift_state")
repository = program("pgbackrest/monitoring/repository")


def values(lines: list[str]) -> dict[str, float]:
    """Samples by name and labels."""
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        ({"health": "true", "reason": ""}, []),
        ({"health": "false", "reason": "ALARM NOSPACE"}, ["NOSPACE"]),
        ({"health": "false", "reason": "ALARM CORRUPT"}, ["CORRUPT"]),
        ({"health": "false", "reason": "RAFT NO LEADER"}, []),
    ],
)
def test_alarms_of_etcd(answer: dict[str, str], raised: list[str]) -> None:
    found = values(alarms.report(json.dumps(answer)))
    assert [alarm for alarm in ("NOSPACE", "CORRUPT") if found[f'sovereign_etcd_alarm{{alarm="{alarm}"}}']] == raised


def test_processes_of_pgpool_that_have_a_client() -> None:
    titles = [
        "pgpool -n -D -f /etc/pgpool2/pgpool.conf",
        "pgpool: wait for connection request",
        "pgpool: reports reports 127.0.0.1(44552) SELECT",
        "pgpool: reports reports 127.0.0.1(44552) idle in transaction",
        "pgpool: accept connection",
        "pgpool: PCP: wait for connection request",
        "pgpool: worker process",
        "pgpool: health check process(0)",
        "psql",
    ]
    assert sessions.taken(titles) == 3


@pytest.mark.parametrize(("said", "up"), [(b"N", True), (b"E", True), (b"", False)])
def test_pgpool_answers_or_not(said: bytes, up: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            stream, _ = server.accept()
            with stream:
                assert stream.recv(8) == sessions.QUESTION
                stream.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        assert sessions.answers("127.0.0.1", server.getsockname()[1]) is up
        thread.join()
    assert not sessions.answers("127.0.0.1", 1)


def test_devices_of_swift(tmp_path: Path) -> None:
    (tmp_path / "d1/quarantined/objects/0c5a").mkdir(parents=True)
    settings, declared = tmp_path / "object-server.conf", tmp_path / "devices.json"
    settings.write_text(f"[DEFAULT]\ndevices = {tmp_path}\nmount_check = false\nfallocate_reserve = 5%\n[app:object-server]\nuse = x\n")
    declared.write_text(json.dumps({"ip": "127.0.0.1", "devices": [{"name": "d1"}, {"name": "d2", "weight": 0}]}))
    one, two = swift.devices(settings, declared)
    assert (one.name, one.present, one.quarantined) == ("d1", True, {"accounts": 0, "containers": 0, "objects": 1})
    assert one.size > one.free > 0
    assert (two.name, two.present, two.quarantined) == ("d2", False, {})
    # A directory is no mount point.
    settings.write_text(settings.read_text().replace("false", "true"))
    assert [one.present for one in swift.devices(settings, declared)] == [False, False]


def test_notes_of_swift_daemons(tmp_path: Path) -> None:
    note = {"replication_last": 100.0, "replication_time": 2.0, "replication_stats": {"failure": 6}}
    (tmp_path / "container.recon").write_text(json.dumps(note))
    (tmp_path / "object.recon").write_text(json.dumps(note | {"object_updater_stats": {"failures_oldest_timestamp_age": None}}))
    (tmp_path / "account.recon").write_text("")
    found = values(swift.report([], swift.notes(tmp_path)))
    assert found == {
        'sovereign_swift_replication_last_timestamp_seconds{server="container"}': 100,
        'sovereign_swift_replication_last_timestamp_seconds{server="object"}': 100,
        'sovereign_swift_replication_duration_seconds{server="container"}': 2,
        'sovereign_swift_replication_duration_seconds{server="object"}': 120,
        'sovereign_swift_replication_failures{server="container"}': 6,
        'sovereign_swift_replication_failures{server="object"}': 6,
        "sovereign_swift_updates_oldest_seconds": 0,
    }


class Pgbackrest:
    """A repository that answers."""

    def __init__(self, first: int, last: int, *missing: int, backup: int | None = None) -> None:
        """Hold the segments from ``first`` to ``last`` but those that are missing, and a backup."""
        self.segments = set(range(first, last + 1)) - set(missing)
        self.first, self.last, self.backup = first, last, first if backup is None else backup
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *words: str) -> str:
        """Answer as pgBackRest does."""
        self.asked.append(words)
        if words == ("info",):
            stopped = {
                "label": "x",
                "type": "full",
                "timestamp": {"start": 10, "stop": 20},
                "info": {"size": 1000, "repository": {"delta": 500}},
                "archive": {"start": self.name(self.backup), "stop": self.name(self.backup)},
                "error": False,
            }
            status = {"code": 0, "message": "ok"}
            archive = [{"id": "17-1", "max": self.name(self.last)}]
            return json.dumps(
                [{"name": "lab", "status": status, "repo": [{"key": 1, "status": status}], "db": [], "backup": [stopped], "archive": archive}]
            )
        path = words[1]
        if path == "archive/lab/17-1":
            return json.dumps({f"00000001{log:08X}": {"type": "path"} for log in {place >> 8 for place in self.segments}})
        log = int(path[-8:], 16)
        return json.dumps({f"{self.name(place)}-{'0' * 40}.zst": {"type": "file", "time": 1} for place in self.segments if place >> 8 == log})

    @staticmethod
    def name(place: int) -> str:
        """Name of a segment."""
        return f"00000001{place >> 8:08X}{place & 0xFF:08X}"


def looked(server: Pgbackrest, memory: Any = None, more: int = 1000) -> Any:
    memory = memory or repository.Memory("lab")
    left = iter([True] * more)
    repository.look(memory, server, 5000.0, lambda: next(left, False))
    return memory


def test_a_log_without_a_gap_is_read_once() -> None:
    server = Pgbackrest(250, 600)
    memory = looked(server)
    assert (memory.up, memory.verified, memory.missing) == (True, 600, None)
    server.segments |= {601}
    server.last, server.asked = 601, []
    assert looked(server, memory).verified == 601
    # Of the log, only the directory with the new segment.
    assert server.asked[1:] == [("repo-ls", "archive/lab/17-1"), ("repo-ls", "archive/lab/17-1/0000000100000002")]


def test_a_gap_is_found_and_closes_with_the_next_backup() -> None:
    server = Pgbackrest(250, 600, 300)
    memory = looked(server)
    assert (memory.verified, memory.missing) == (299, 300)
    assert looked(server, memory).missing == 300
    server.backup = 400
    assert looked(server, memory).missing is None


def test_a_segment_that_is_late_is_no_gap_for_long() -> None:
    server = Pgbackrest(0, 10, 9)
    memory = looked(server)
    assert memory.missing == 9
    server.segments |= {9}
    assert (looked(server, memory).missing, memory.verified) == (None, 10)


def test_a_directory_that_is_missing_is_a_gap() -> None:
    assert looked(Pgbackrest(0, 600, *range(256, 512))).missing == 256


def test_what_time_does_not_allow_is_looked_at_later() -> None:
    server = Pgbackrest(0, 1000)
    memory = looked(server, more=2)
    assert (memory.verified, memory.missing) == (511, None)
    assert looked(server, memory).verified == 1000


def test_a_repository_that_does_not_answer_is_told_beside_what_was_known() -> None:
    memory = looked(Pgbackrest(0, 10))

    def hangs(*words: str) -> str:
        raise subprocess.TimeoutExpired("pgbackrest", 8)

    repository.look(memory, hangs, 6000.0, lambda: True)
    found = values(repository.report(memory, repository.runs("active\n", "[]", "")))
    assert found['sovereign_pgbackrest_repository_up{stanza="lab"}'] == 0
    assert found['sovereign_pgbackrest_repository_read_timestamp_seconds{stanza="lab"}'] == 5000
    assert found['sovereign_pgbackrest_backup_timestamp_seconds{stanza="lab",type="full"}'] == 20
    assert found['sovereign_pgbackrest_backups{stanza="lab",type="diff"}'] == 0


def test_what_systemd_says_of_the_timer_and_its_runs() -> None:
    timers = '[{"next":1796057280000000,"left":1,"last":1796057220832186,"passed":1,"unit":"pgbackrest-backup.timer","activates":"x"}]'
    services = "ExecMainExitTimestamp=@100\nActiveState=inactive\n\nExecMainExitTimestamp=@90\nActiveState=failed\n"
    assert repository.runs("active\n", timers, services) == repository.Runs(True, 1796057220.832186, 1796057280.0, 90.0)
    stopped = '[{"next":null,"left":null,"last":null,"passed":null,"unit":"pgbackrest-backup.timer","activates":"x"}]'
    assert repository.runs("inactive\n", stopped, "") == repository.Runs(False, None, None, None)


def test_what_is_kept_survives_and_belongs_to_one_stanza(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    assert repository.recall(path, "lab") == repository.Memory("lab")
    path.write_text('{"stanza": "lab", "verified": 7, "up": true}')
    assert repository.recall(path, "lab") == repository.Memory("lab", up=True, verified=7)
    assert repository.recall(path, "other") == repository.Memory("other")
    for broken in ("", "{", '{"unknown": 1}'):
        path.write_text(broken)
        assert repository.recall(path, "lab") == repository.Memory("lab")
