# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Swift's rings: what each member has of them, what they shall be, and when they must not be touched.

A ring says which devices hold which part of the data. Two rings of different origin would look for the same object at different places, so that
there is one line of versions, and each member has the newest that it has been told. Runs on managed hosts; Swift's library comes in from outside.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from configparser import ConfigParser, Error
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

KINDS = ("account", "container", "object")
DEFAULT_WEIGHT = 100.0
MIN_PART_HOURS = 1

Report = dict[str, Any]
"""What a member tells: ``ip``, ``devices`` (each with ``name`` and, if given, ``weight``), ``hash`` (a digest of what objects are placed by; empty if
there is none) and ``rings``: by kind ``builder`` and ``ring``, in base64."""


class RingError(Exception):
    """Rings that must not be touched like this; the message says why, and what to do."""


class Builder(Protocol):
    """The part of Swift's ``RingBuilder`` that is used here."""

    @property
    def id(self) -> str:
        """Where it comes from."""

    @property
    def version(self) -> int:
        """How often it was changed."""

    @property
    def part_power(self) -> int:
        """Power of two of its parts."""

    @property
    def replicas(self) -> float:
        """Copies of everything."""

    @property
    def devs(self) -> list[dict[str, Any] | None]:
        """Devices by number, with holes where one was removed."""

    def add_dev(self, dev: dict[str, Any]) -> int:
        """Add a device."""

    def set_dev_weight(self, dev_id: int, weight: float) -> None:
        """Have a device hold more or less."""

    def remove_dev(self, dev_id: int) -> None:
        """Remove a device."""

    def set_replicas(self, new_replica_count: float) -> None:
        """Have more copies of everything, or fewer."""

    def rebalance(self) -> tuple[int, float, int]:
        """Give the devices their shares."""

    def validate(self) -> Any:  # noqa: ANN401
        """Raise where something is wrong."""


@dataclass(frozen=True)
class Device:
    """A device as it is declared."""

    ip: str
    name: str
    weight: float


@dataclass
class Library:
    """Ways to Swift's library.

    Attributes:
        load: Makes a builder of what was saved.
        create: Makes a new one, of a part power, a number of replicas and the hours in which a part is moved once at most.
        save: Gives a builder and its ring as they are saved.
    """

    load: Callable[[bytes], Builder]
    create: Callable[[int, int, int], Builder]
    save: Callable[[str, Builder], tuple[bytes, bytes]]


@dataclass
class Plan:
    """What shall be.

    Attributes:
        rings: By kind ``builder`` and ``ring``, in base64.
        changes: In words what differs from what the members have.
        notes: What whoever runs this should know.
    """

    rings: dict[str, dict[str, str]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def pack(data: bytes) -> str:
    """Write bytes as text."""
    return base64.b64encode(data).decode()


def unpack(text: str) -> bytes:
    """Read bytes that were written as text."""
    return base64.b64decode(text)


def report(directory: Path) -> Report:
    """Tell what a member has, in Swift's directory of settings; of a host that has nothing yet, nothing."""
    told: Report = {"ip": "", "devices": [], "hash": "", "rings": {}}
    declared = directory / "sovereign-devices.json"
    if declared.exists():
        told.update(json.loads(declared.read_text(encoding="utf-8")))
        settings = ConfigParser(interpolation=None)
        try:
            settings.read(directory / "swift.conf")
            secrets = [settings.get("swift-hash", f"swift_hash_path_{end}") for end in ("prefix", "suffix")]
            told["hash"] = hashlib.sha256("\n".join(secrets).encode()).hexdigest()
        except Error:
            pass
    for kind in KINDS:
        files = {"builder": directory / f"{kind}.builder", "ring": directory / f"{kind}.ring.gz"}
        if all(path.exists() for path in files.values()):
            told["rings"][kind] = {name: pack(path.read_bytes()) for name, path in files.items()}
    return told


def present(builder: Builder) -> list[dict[str, Any]]:
    """Devices of a builder, without the holes that removed ones have left."""
    return [device for device in builder.devs if device and device["weight"] >= 0]


def title(device: Mapping[str, Any]) -> str:
    """Name a device of a ring."""
    return f"{device['ip']}/{device['device']}"


def newest(kind: str, reports: Iterable[Report], load: Callable[[bytes], Builder]) -> tuple[Builder, dict[str, str]] | None:
    """Find the newest builder that any member has, with what that member told of it.

    Raises:
        RingError: there are builders of different origin.
    """
    found: list[tuple[Builder, dict[str, str], str]] = []
    for told in reports:
        if kind in told["rings"]:
            saved = told["rings"][kind]
            found.append((load(unpack(saved["builder"])), saved, told["ip"]))
    if len({builder.id for builder, dummy, dummy2 in found}) > 1:
        listing = "; ".join(f"{ip} has {builder.id}, version {builder.version}" for builder, dummy, ip in found)
        raise RingError(
            f"the members have {kind} rings of different origin ({listing}): each would look for data where the others have not put it. Find the "
            "one that "
            f"the data were written with, and remove /etc/swift/*.builder and *.ring.gz from the members with another one"
        )
    if not found:
        return None
    builder, saved, dummy = max(found, key=lambda item: item[0].version)
    return builder, saved


def adjust(
    builder: Builder, kind: str, port: int, wanted: Sequence[Device], members: Sequence[str], silent: Sequence[str], replicas: int
) -> list[str]:
    """Bring a builder's devices to what is declared.

    Args:
        builder: What is changed.
        kind: Its kind, for messages.
        port: Port of the servers of this kind.
        wanted: All declared devices of the members that have answered.
        members: Addresses of all members in the rings.
        silent: Those that have not answered: theirs stay as they are.
        replicas: Copies that there shall be.

    Returns:
        In words, what was changed.

    Raises:
        RingError: data could be lost.
    """
    changes = []
    known = {(device["ip"], device["device"]): device for device in present(builder)}
    declared = {(device.ip, device.name) for device in wanted}
    for place, device in known.items():
        if place in declared or place[0] in silent:
            continue
        if device["weight"] > 0 or device["parts"] > 0:
            where = "its host is no member any more" if place[0] not in members else "its host does not declare it any more"
            raise RingError(
                f"the {kind} ring has the device {title(device)}, but {where}. To take a device away without losing data: declare it with "
                "`weight: 0`, run, "
                f"wait until its directory holds no objects, then take it away and run again"
            )
        builder.remove_dev(device["id"])
        changes.append(f"{kind}: {title(device)} removed")
    zones = {device["ip"]: device["zone"] for device in known.values()}
    for one in wanted:
        found = known.get((one.ip, one.name))
        if found is None:
            zone = zones.setdefault(one.ip, max(zones.values(), default=0) + 1)
            address = {"ip": one.ip, "port": port, "replication_ip": one.ip, "replication_port": port}
            builder.add_dev({"region": 1, "zone": zone, "device": one.name, "weight": one.weight, "meta": "", **address})
            changes.append(f"{kind}: {one.ip}/{one.name} added, zone {zone}, weight {one.weight:g}")
        elif found["weight"] != one.weight:
            changes.append(f"{kind}: {title(found)} weight {found['weight']:g} -> {one.weight:g}")
            builder.set_dev_weight(found["id"], one.weight)
    holders = {device["ip"] for device in present(builder) if device["weight"] > 0}
    if len(holders) < max(replicas, int(builder.replicas)):
        raise RingError(
            f"{len(holders)} hosts with devices of a weight above 0 cannot hold {max(replicas, int(builder.replicas))} copies on hosts of their "
            "own: add "
            f"one before you take one away"
        )
    # Fewer copies than there are is never what a lost host means.
    if replicas > builder.replicas:
        changes.append(f"{kind}: copies {builder.replicas:g} -> {replicas}")
        builder.set_replicas(replicas)
    return changes


def draining(builder: Builder) -> list[dict[str, Any]]:
    """Devices of weight 0 that still have parts."""
    return [device for device in present(builder) if device["weight"] == 0 and device["parts"] > 0]


def plan(reports: Sequence[Report], members: Sequence[str], ports: Mapping[str, int], replicas: int, part_power: int, library: Library) -> Plan:
    """Say what the rings shall be.

    Args:
        reports: Of the members that have answered.
        members: Addresses of all members in the rings.
        ports: Of the servers, by kind.
        replicas: Copies that there shall be.
        part_power: Of new rings; that of old ones is fixed.
        library: Swift's.

    Raises:
        RingError: with the reason, and what to do.
    """
    result = Plan()
    answered = {told["ip"] for told in reports if told["ip"]}
    silent = [ip for ip in members if ip not in answered]
    if len({told["hash"] for told in reports if told["hash"]}) > 1:
        raise RingError(
            "the members have different hash prefixes or suffixes in /etc/swift/swift.conf: none would find what the others have stored. Bring "
            "back the "
            "secrets object_storage/hash_prefix and object_storage/hash_suffix that the data were written with"
        )
    wanted = [
        Device(told["ip"], device["name"], float(device.get("weight", DEFAULT_WEIGHT)))
        for told in sorted(reports, key=lambda told: list(members).index(told["ip"]) if told["ip"] in members else -1)
        if told["ip"] in members
        for device in told["devices"]
    ]
    for kind in KINDS:
        saved: dict[str, str] = {}
        found = newest(kind, reports, library.load)
        if found is None:
            if silent:
                raise RingError(
                    f"no member that answers has a {kind} ring, but {', '.join(silent)} did not answer and may have one. New rings are made only "
                    "when all "
                    f"members say that they have none"
                )
            builder = library.create(part_power, replicas, MIN_PART_HOURS)
            result.changes.append(f"{kind}: new ring, {2**part_power} parts, {replicas} copies")
        else:
            builder, saved = found
            if builder.part_power != part_power:
                raise RingError(f"the {kind} ring has the part power {builder.part_power}, which is fixed; set object_storage_part_power to it again")
        changes = adjust(builder, kind, ports[kind], wanted, members, silent, replicas)
        if found is None or changes or draining(builder):
            if 2 * len(answered & set(members)) <= len(members):
                raise RingError(f"rings are changed only while a majority of the members answers; {', '.join(silent)} did not")
            moved, balance, dummy = builder.rebalance()
            builder.validate()
            # Of drained devices, each part moves once an hour at most; what could not move yet goes in a later run.
            result.changes += changes or ([f"{kind}: {moved} parts moved away from devices of weight 0"] if moved else [])
            if moved or changes or found is None:
                saved_builder, ring = library.save(kind, builder)
                saved = {"builder": pack(saved_builder), "ring": pack(ring)}
                result.notes.append(f"{kind}: {moved} parts moved, balance {balance:.1f} %")
        result.notes += [f"{kind}: {title(device)} has weight 0 and still has {device['parts']} parts" for device in draining(builder)]
        result.rings[kind] = saved
    return result
