"""Print what Swift's daemons note of their passes, what they have quarantined, and how full the devices are."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/swift/object-server.conf")
DECLARED = Path("/etc/swift/sovereign-devices.json")
CACHE = Path("/var/cache/swift")
SERVERS = ("account", "container", "object")
# The object replicator notes minutes, the others seconds.
UNITS = {"object": 60.0}


@dataclass(frozen=True)
class Device:
    """A directory or disk that objects are kept on.

    Attributes:
        name: Its name in the rings.
        present: Whether it is there: mounted, where it has to be.
        size: Bytes that it has for Swift: those in use, and those that are free.
        free: Bytes that Swift may still write to.
        quarantined: Objects, containers and accounts that were found damaged, by kind.
    """

    name: str
    present: bool
    size: int
    free: int
    quarantined: Mapping[str, int]


def devices(settings: Path = SETTINGS, declared: Path = DECLARED) -> list[Device]:
    """Look at the devices that this member has."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(settings.read_text(encoding="utf-8"))
    section = parser["DEFAULT"]
    directory, mounted = Path(section.get("devices", "/srv/node")), section.getboolean("mount_check", fallback=True)
    names = [str(one["name"]) for one in json.loads(declared.read_text(encoding="utf-8"))["devices"]]
    return [device(directory / name, mounted) for name in names]


def device(path: Path, mounted: bool) -> Device:
    """Look at one. A disk that has died may still be mounted, and refuses to be read."""
    try:
        if not (path.is_mount() if mounted else path.is_dir()):
            return Device(path.name, False, 0, 0, {})
        state = os.statvfs(path)
        counts = {f"{kind}s": entries(path / "quarantined" / f"{kind}s") for kind in SERVERS}
    except OSError:
        return Device(path.name, False, 0, 0, {})
    return Device(path.name, True, state.f_frsize * (state.f_blocks - state.f_bfree + state.f_bavail), state.f_frsize * state.f_bavail, counts)


def entries(directory: Path) -> int:
    """Count what lies in a directory; there is none before there is something in it."""
    try:
        with os.scandir(directory) as found:
            return sum(1 for dummy in found)
    except FileNotFoundError:
        return 0


def notes(cache: Path = CACHE) -> dict[str, dict[str, Any]]:
    """Read what the daemons note after each pass. Before the first one, a file may be there and empty."""
    found: dict[str, dict[str, Any]] = {}
    for server in SERVERS:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            found[server] = json.loads((cache / f"{server}.recon").read_text(encoding="utf-8"))
    return found


def report(looked: Iterable[Device], noted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""
    present = list(looked)
    lines: list[str] = []

    def metric(name: str, text: str, values: Iterable[tuple[str, float]]) -> None:
        lines.extend([f"# HELP sovereign_swift_{name} {text}", f"# TYPE sovereign_swift_{name} gauge"])
        lines.extend(f"sovereign_swift_{name}{labels} {value:.15g}" for labels, value in values)

    replicated = [(f'{{server="{name}"}}', name, note) for name, note in noted.items() if "replication_last" in note]
    metric(
        "replication_last_timestamp_seconds",
        "When the replicator has last ended a pass, in seconds since 1970.",
        [(labels, note["replication_last"]) for labels, dummy, note in replicated],
    )
    metric(
        "replication_duration_seconds",
        "How long its last pass has taken.",
        [(labels, note.get("replication_time", 0) * UNITS.get(name, 1.0)) for labels, name, note in replicated],
    )
    metric(
        "replication_failures",
        "Copies that its last pass could not make or compare.",
        [(labels, note.get("replication_stats", {}).get("failure", 0)) for labels, dummy, note in replicated],
    )
    updater = noted.get("object", {}).get("object_updater_stats")
    if updater is not None:
        metric(
            "updates_oldest_seconds",
            "Age of the oldest entry of a list of objects that could not be made in the updater's last pass; 0 where there is none.",
            [("", updater.get("failures_oldest_timestamp_age") or 0)],
        )
    metric("device_present", "Whether a device is there.", [(f'{{device="{one.name}"}}', int(one.present)) for one in present])
    metric("device_size_bytes", "Size of a device.", [(f'{{device="{one.name}"}}', one.size) for one in present if one.present])
    metric("device_free_bytes", "What is free on a device.", [(f'{{device="{one.name}"}}', one.free) for one in present if one.present])
    metric(
        "quarantined",
        "What was found damaged on a device, and still lies there.",
        [(f'{{device="{one.name}",kind="{kind}"}}', count) for one in present for kind, count in one.quarantined.items()],
    )
    return lines


def main() -> None:
    """Look, and print."""
    print("\n".join(report(devices(), notes())))


if __name__ == "__main__":
    main()
