"""Rings of an object storage: when they are made, handed on, changed, and refused; with a library that works as Swift's does."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.swift_health import Health
from ansible_collections.sovereign.dify.plugins.module_utils.swift_ring import KINDS, Library, Plan, Report, RingError, pack, plan, report, unpack

MEMBERS = ["127.1.1.11", "127.1.1.12", "127.1.1.13"]
PORTS = {"account": 6202, "container": 6201, "object": 6200}
ORIGINS = itertools.count()


class Builder:
    """Devices with parts in proportion to their weights."""

    def __init__(self, part_power: int, replicas: int) -> None:
        """Begin empty."""
        self.id = f"origin-{next(ORIGINS)}"
        self.version = 0
        self.part_power = part_power
        self.replicas = replicas
        self.devs: list[dict[str, Any] | None] = []
        self.stuck = False

    def add_dev(self, dev: dict[str, Any]) -> int:
        """Add a device."""
        self.devs.append({**dev, "id": len(self.devs), "parts": 0})
        self.version += 1
        return len(self.devs) - 1

    def set_dev_weight(self, dev_id: int, weight: float) -> None:
        """Set its share."""
        device = self.devs[dev_id]
        assert device
        device["weight"] = weight
        self.version += 1

    def remove_dev(self, dev_id: int) -> None:
        """Leave a hole."""
        self.devs[dev_id] = None
        self.version += 1

    def set_replicas(self, new_replica_count: float) -> None:
        """Want more copies."""
        self.replicas = int(new_replica_count)
        self.version += 1

    def rebalance(self) -> tuple[int, float, int]:
        """Share out by weight."""
        devices = [device for device in self.devs if device]
        total, moved = sum(device["weight"] for device in devices), 0
        for device in devices:
            share = int(self.replicas * 2**self.part_power * device["weight"] / total)
            if self.stuck and share < device["parts"]:
                share = device["parts"] // 2
            moved += abs(share - device["parts"])
            device["parts"] = share
        self.version += 1
        return moved, 0.0, 0

    def validate(self) -> None:
        """Find nothing wrong."""
        assert all(device["parts"] >= 0 for device in self.devs if device)


def save(kind: str, builder: Any) -> tuple[bytes, bytes]:
    return json.dumps(vars(builder), sort_keys=True).encode(), f"{kind} {builder.id} {builder.version}".encode()


def load(data: bytes) -> Builder:
    builder = Builder(0, 0)
    vars(builder).update(json.loads(data))
    return builder


LIBRARY = Library(load=load, create=lambda power, replicas, dummy: Builder(power, replicas), save=save)


def member(number: int, found: Plan | None = None, devices: list[dict[str, Any]] | None = None, digest: str = "same") -> Report:
    rings = {} if found is None else {kind: {name: ring[name] for name in ("builder", "ring")} for kind, ring in found.rings.items()}
    return {"ip": f"127.1.1.{number}", "devices": [{"name": "d1"}] if devices is None else devices, "hash": digest, "rings": rings}


def work(reports: list[Report], members: list[str] | None = None, replicas: int = 3, power: int = 8) -> Plan:
    return plan(reports, members or MEMBERS, PORTS, replicas, power, LIBRARY)


@pytest.fixture
def first() -> Plan:
    """Rings as three members have them after the first run."""
    return work([member(11), member(12), member(13)])


def devices(found: Plan, kind: str = "object") -> dict[str, tuple[int, float, int, int]]:
    """Zone, weight, parts and port by device."""
    present = [device for device in load(unpack(found.rings[kind]["builder"])).devs if device]
    return {f"{one['ip']}/{one['device']}": (one["zone"], one["weight"], one["parts"], one["port"]) for one in present}


def test_new_rings_have_a_zone_for_each_host(first: Plan) -> None:
    assert devices(first) == {f"{ip}/d1": (zone, 100.0, 256, 6200) for zone, ip in enumerate(MEMBERS, 1)}
    assert devices(first, "account")["127.1.1.11/d1"][3] == 6202
    assert [change for change in first.changes if "new ring" in change] == [f"{kind}: new ring, 256 parts, 3 copies" for kind in KINDS]


def test_a_rerun_changes_not_a_byte(first: Plan) -> None:
    again = work([member(number, first) for number in (11, 12, 13)])
    assert again.changes == []
    assert again.rings == first.rings


def test_a_member_installed_anew_gets_what_the_others_have(first: Plan) -> None:
    again = work([member(11), member(12, first), member(13, first)])
    assert again.changes == []
    assert again.rings == first.rings


def test_the_newest_wins_even_if_one_member_alone_has_it(first: Plan) -> None:
    newer = work([member(11, first, [{"name": "d1"}, {"name": "d2"}]), member(12, first), member(13, first)])
    both = [{"name": "d1"}, {"name": "d2"}]
    again = work([member(11, first, both), member(12, first), member(13, newer)])
    assert again.changes == []
    assert again.rings == newer.rings


def test_no_new_rings_while_a_silent_member_may_have_some(first: Plan) -> None:
    with pytest.raises(RingError, match=r"127\.1\.1\.12, 127\.1\.1\.13 did not answer"):
        work([member(11)])
    # A lone member that has rings goes on with them.
    assert work([member(11, first)]).rings == first.rings


def test_rings_of_different_origin_are_told_apart(first: Plan) -> None:
    second = work([member(11), member(12), member(13)])
    with pytest.raises(RingError, match="different origin"):
        work([member(11, second), member(12, first), member(13, first)])


def test_different_hash_secrets_are_told(first: Plan) -> None:
    with pytest.raises(RingError, match="hash"):
        work([member(11, first), member(12, first, digest="other"), member(13, first)])


def test_a_host_that_joins_gets_its_share_in_a_zone_of_its_own(first: Plan) -> None:
    four = work([*(member(number, first) for number in (11, 12, 13)), member(14)], [*MEMBERS, "127.1.1.14"])
    assert devices(four)["127.1.1.14/d1"] == (4, 100.0, 192, 6200)
    assert "object: 127.1.1.14/d1 added, zone 4, weight 100" in four.changes
    assert load(unpack(four.rings["object"]["builder"])).version > load(unpack(first.rings["object"]["builder"])).version


def test_rings_are_not_changed_without_a_majority(first: Plan) -> None:
    with pytest.raises(RingError, match="majority"):
        work([member(11, first, [{"name": "d1"}, {"name": "d2"}])])
    changed = work([member(11, first, [{"name": "d1"}, {"name": "d2"}]), member(12, first)])
    # What the silent one has stays.
    assert set(devices(changed)) == {"127.1.1.11/d1", "127.1.1.11/d2", "127.1.1.12/d1", "127.1.1.13/d1"}


def test_a_device_that_holds_data_does_not_vanish(first: Plan) -> None:
    two = [{"name": "d1"}, {"name": "d2"}]
    grown = work([member(11, first, two), member(12, first), member(13, first)])
    with pytest.raises(RingError, match=r"127\.1\.1\.11/d2, but its host does not declare it"):
        work([member(11, grown), member(12, grown), member(13, grown)])
    drained = work([member(11, grown, [{"name": "d1"}, {"name": "d2", "weight": 0}]), member(12, grown), member(13, grown)])
    assert devices(drained)["127.1.1.11/d2"][1:3] == (0.0, 0)
    removed = work([member(11, drained), member(12, drained), member(13, drained)])
    assert "127.1.1.11/d2" not in devices(removed)
    assert "object: 127.1.1.11/d2 removed" in removed.changes


def test_a_host_that_is_no_member_any_more_does_not_vanish_either(first: Plan) -> None:
    with pytest.raises(RingError, match=r"127\.1\.1\.13/d1, but its host is no member"):
        work([member(11, first), member(12, first)], MEMBERS[:2], replicas=2)


def test_draining_goes_on_where_parts_were_left_and_is_said(first: Plan) -> None:
    two: list[dict[str, Any]] = [{"name": "d1"}, {"name": "d2"}]
    none: list[dict[str, Any]] = [{"name": "d1"}, {"name": "d2", "weight": 0}]
    grown = work([member(11, first, two), member(12, first), member(13, first)])
    for ring in grown.rings.values():
        builder = load(unpack(ring["builder"]))
        builder.stuck = True
        ring["builder"] = pack(save("", builder)[0])
    begun = work([member(11, grown, none), member(12, grown), member(13, grown)])
    assert any("still has" in note for note in begun.notes)
    further = work([member(11, begun, none), member(12, begun), member(13, begun)])
    assert devices(further)["127.1.1.11/d2"][2] < devices(begun)["127.1.1.11/d2"][2]


def test_fewer_hosts_than_copies_are_refused(first: Plan) -> None:
    with pytest.raises(RingError, match="cannot hold 3 copies"):
        work([member(11, first, [{"name": "d1", "weight": 0}]), member(12, first), member(13, first)])


def test_copies_grow_and_do_not_shrink() -> None:
    one = work([member(11)], MEMBERS[:1], replicas=1)
    three = work([member(11, one), member(12), member(13)])
    assert "object: copies 1 -> 3" in three.changes
    assert work([member(number, three) for number in (11, 12, 13)], replicas=2).changes == []


def test_the_part_power_is_fixed(first: Plan) -> None:
    with pytest.raises(RingError, match="part power 8, which is fixed"):
        work([member(number, first) for number in (11, 12, 13)], power=9)


def test_a_member_tells_what_it_has(tmp_path: Path) -> None:
    assert report(tmp_path) == {"ip": "", "devices": [], "hash": "", "rings": {}}
    (tmp_path / "sovereign-devices.json").write_text('{"ip": "127.1.1.11", "devices": [{"name": "d1"}]}')
    (tmp_path / "swift.conf").write_text("[swift-hash]\nswift_hash_path_prefix = a%b\nswift_hash_path_suffix = c\n")
    (tmp_path / "object.builder").write_bytes(b"builder")
    (tmp_path / "object.ring.gz").write_bytes(b"ring")
    (tmp_path / "account.ring.gz").write_bytes(b"without its builder")
    told = report(tmp_path)
    assert (told["ip"], len(told["hash"]), list(told["rings"])) == ("127.1.1.11", 64, ["object"])
    assert unpack(told["rings"]["object"]["builder"]) == b"builder"


class Members:
    """Three members that answer as Swift's servers do."""

    def __init__(self) -> None:
        """All is well."""
        self.down: set[tuple[str, int]] = set()
        self.md5 = dict.fromkeys(MEMBERS, "1")
        self.begun, self.failure = 1000.0, 0

    def get(self, address: str, port: int, path: str) -> bytes:
        """Answer, unless down."""
        if (address, port) in self.down:
            raise OSError("connection refused")
        if path == "/recon/ringmd5":
            return json.dumps({"object": self.md5[address]}).encode()
        if path == "/recon/replication/object":
            return json.dumps({"object_replication_last": self.begun + 60, "object_replication_time": 1.0}).encode()
        if path.startswith("/recon/replication/"):
            stats = {"failure": self.failure}
            return json.dumps({"replication_last": self.begun + 60, "replication_time": 60.0, "replication_stats": stats}).encode()
        return b"OK"

    def greet(self, address: str, port: int) -> None:
        """Greet, unless down."""
        self.get(address, port, "")

    def faults(self, since: float | None = None) -> list[str]:
        """Ask the first member."""
        ports = {**PORTS, "rsync": 6203, "proxy": 8080}
        return Health(MEMBERS[0], MEMBERS, ports, self.get, self.greet).faults(since)


def test_a_member_is_well_or_says_why_not() -> None:
    members = Members()
    assert members.faults() == []
    members.down = {(MEMBERS[0], 8080), (MEMBERS[0], 6203)}
    assert members.faults() == ["proxy server: connection refused", "rsync: connection refused"]
    # One of the others may be away, not both.
    members.down = {(MEMBERS[1], 6200)}
    assert members.faults() == []
    members.down |= {(MEMBERS[2], 6203)}
    assert members.faults() == ["only 1 of 3 members can be reached"]
    members.down, members.md5[MEMBERS[2]] = set(), "2"
    assert members.faults() == [f"{MEMBERS[2]} has other rings"]


def test_copies_count_from_passes_that_began_afterwards() -> None:
    members = Members()
    assert members.faults(since=999) == []
    assert len(members.faults(since=1001)) == 9
    members.failure = 2
    assert f"{MEMBERS[1]}: 2 accounts could not be copied" in members.faults(since=999)
