"""Try the GPUs of one vLLM instance before vLLM does: copies between each two of them, and an all-reduce over all of them.

Tensor parallelism stands or falls with both. Where they hang, vLLM hangs at its start without a word; where they are slow or wrong, so are its
answers. So each is compared with what the topology lets one expect, data are checked, and a hang ends after a time limit with what usually causes it.

The processes that touch GPUs are children, because nothing in the process that hangs in the driver could still tell of it. Run with the Python of
vLLM's environment; it needs nothing else than the standard library and torch.

Prints a report as JSON to standard output, and one line for people to standard error. Exit status: 0 good, 1 slow, wrong or hanging, 2 not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import IO, Any

GOOD, FAULTY, UNMEASURED = 0, 1, 2
FAULTS = ("hangs", "wrong", "slow")
MIB = 1 << 20
GIB = 1 << 30
GIGA = 1e9

# GB/s of one NVLink in one direction, by CUDA's compute capability, where nvidia-smi does not tell. NVIDIA's white papers on the architectures: V100
# (NVLink 2), A100 (NVLink 3, 12 links), GA102 (RTX 3090 and A40: NVLink 3 at 14 GB/s, 4 links), H100 and H200 (NVLink 4, 18 links), B200 (NVLink 5,
# 18 links).
NVLINK_GBPS = {"7.0": 25.0, "8.0": 25.0, "8.6": 14.0, "9.0": 25.0, "10.0": 50.0, "10.3": 50.0}
# Of the line rate, 20 of 25 GB/s are left to data in packets of 128 bytes: NCCL's author in github.com/NVIDIA/nccl-tests/issues/149 (A100: 230 of
# 300 GB/s) and /212 (H100: 370 of 450). Copies reach it too: 371 to 376 of 450 GB/s between H100s in github.com/NVIDIA/nccl/issues/1264.
NVLINK_SHARE = 0.8
# Two H100 PCIe under a bridge reach 116 GB/s over 12 links in github.com/NVIDIA/nccl/issues/1161, less than half of what an NVSwitch gives.
BRIDGED_SHARE = 0.5
# GB/s over 16 lanes in one direction, after the overhead of packets: 8, 16, 32 and 64 GT/s a lane give 15.8, 31.5, 63 and 126 GB/s on the wire, and
# what copies have been seen to reach is about four fifths of that (gen 3: 12, gen 4: 25, gen 5: 52 to 55).
PCIE_GBPS = {1: 3.0, 2: 6.0, 3: 12.0, 4: 25.0, 5: 50.0, 6: 100.0}
FULL_WIDTH = 16
# What is left of that on the way to another GPU: a bridge forwards at full speed; a processor's own bridges forward more slowly, and so does the link
# between processors. Deliberately low: makes of processors differ by a factor of two, and a broken host by more than that.
PCIE_SHARE = {"PIX": 0.9, "PXB": 0.9, "PHB": 0.7, "NODE": 0.7, "SYS": 0.5}
# Without P2P, each copy goes into the host's memory and out again: 37 GB/s between H100s (PCIe 5) in github.com/NVIDIA/nccl/issues/1264.
STAGED_SHARE = 0.5
# More than two GPUs share bridges and memory: eight of PCIe 5 reach 28 GB/s, four 35 in github.com/NVIDIA/nccl/issues/1639.
SHARED_SHARE = 0.6

COPY_BYTES = 256 * MIB
COPY_ROUNDS = 10
REDUCE_BYTES = {"nccl": (64 * MIB, 256 * MIB, GIB), "gloo": (MIB, 8 * MIB)}
REDUCE_ROUNDS = {"nccl": 20, "gloo": 3}
# Numbers below this, times the sum of as many ranks as a host can have, are exact in single precision.
PATTERN = 1024
# What NCCL maps for 8 GPUs with room to spare; containers start with 64 MiB.
SHM = "dev/shm"
SHM_BYTES = GIB
KILL_WAIT_S = 5.0
PR_SET_PDEATHSIG = 1

Event = dict[str, Any]
# torch is in vLLM's environment alone, so its types are known there alone.
Torch = Any


class UnmeasuredError(Exception):
    """It could not be measured."""


class HangError(Exception):
    """It has not come to an end."""


@dataclass(frozen=True)
class Expected:
    """A bandwidth that may be expected.

    Attributes:
        gbps: In GB/s; None where nothing lets one expect anything.
        why: What it follows from, for instance ``NV18``.
    """

    gbps: float | None
    why: str


@dataclass(frozen=True)
class Topology:
    """What the module ``gpu_info`` has found out, as far as it matters here.

    Attributes:
        gpus: Its GPUs.
        links: How the GPU of one place in ``gpus`` reaches that of another.
        nvswitches: Number of NVSwitches.
        fabric: What it says of the fabric manager.
    """

    gpus: Sequence[Mapping[str, Any]] = ()
    links: Sequence[Sequence[str]] = ()
    nvswitches: int = 0
    fabric: Mapping[str, Any] = field(default_factory=dict)

    def place(self, gpu: str) -> int | None:
        """Place of a GPU, by index or UUID; None for what it does not know, for instance a MIG device."""
        known = (place for place, found in enumerate(self.gpus) if gpu in (str(found["index"]), found["uuid"]))
        return next(known, None)

    def link(self, one: str, other: str) -> str:
        """How a GPU reaches another, in nvidia-smi's words; empty where that is unknown."""
        places = self.place(one), self.place(other)
        return self.links[places[0]][places[1]] if self.links and places[0] is not None and places[1] is not None else ""

    def uuid(self, gpu: str) -> str | None:
        """UUID of a GPU, or of a MIG device by both numbers (``0:1``); None for what it does not know."""
        whole, dummy, part = gpu.partition(":")
        found = self.of(whole)
        if not part:
            return found.get("uuid")
        return next((mig["uuid"] or None for mig in found.get("mig_instances", ()) if str(mig["index"]) == part), None)

    def of(self, gpu: str) -> Mapping[str, Any]:
        """What is known of a GPU."""
        place = self.place(gpu)
        return {} if place is None else self.gpus[place]


@dataclass(frozen=True)
class Judged:
    """A bandwidth that was measured.

    Attributes:
        what: What it is of, for people.
        gbps: In GB/s.
        expected: What was to be expected.
        floor: Share of that below which it is too slow.
    """

    what: str
    gbps: float
    expected: Expected
    floor: float

    @property
    def share(self) -> float | None:
        """Share of what was to be expected."""
        return self.gbps / self.expected.gbps if self.expected.gbps else None

    @property
    def slow(self) -> bool:
        """Whether it is too slow."""
        return self.share is not None and self.share < self.floor

    def __str__(self) -> str:
        """In words."""
        if self.share is None:
            return f"{self.what}: {self.gbps:.1f} GB/s (nothing to compare it with: {self.expected.why})"
        return (
            f"{self.what}: {self.gbps:.1f} GB/s, {self.share:.0%} of the {self.expected.gbps:.0f} GB/s that {self.expected.why} lets one expect "
            f"(at least {self.floor:.0%} are wanted)"
        )

    def report(self) -> dict[str, Any]:
        """For the report."""
        return {
            "gbps": round(self.gbps, 2),
            "expected_gbps": None if self.expected.gbps is None else round(self.expected.gbps, 2),
            "because_of": self.expected.why,
            "share": None if self.share is None else round(self.share, 3),
            "slow": self.slow,
        }


def nvlinks(link: str) -> int:
    """Return the number of NVLinks in nvidia-smi's word for a link: 18 for ``NV18``, 0 for ``SYS``."""
    return int(link[2:]) if link.startswith("NV") and link[2:].isdigit() else 0


def expected_of_pcie(gpu: Mapping[str, Any]) -> Expected:
    """What a GPU's PCIe link lets one expect.

    Args:
        gpu: As the module ``gpu_info`` returns it.
    """
    if gpu.get("virtualization"):
        return Expected(None, "a hypervisor shows a PCIe bus of its own making")
    generation, width = gpu.get("pcie_generation_max"), gpu.get("pcie_width_max")
    if generation not in PCIE_GBPS or not width:
        return Expected(None, "the PCIe link is unknown")
    return Expected(PCIE_GBPS[generation] * width / FULL_WIDTH, f"PCIe {generation} x{width}")


def expected_of_pair(topology: Topology, one: str, other: str, p2p: bool) -> Expected:
    """What the link between two GPUs lets one expect of a copy from one to the other.

    Args:
        topology: The topology.
        one: The first GPU.
        other: The second.
        p2p: Whether CUDA lets one reach the other's memory; NVLink always should.
    """
    link, gpus = topology.link(one, other), (topology.of(one), topology.of(other))
    if count := nvlinks(link):
        told = [gpu.get("nvlink_gbps") or NVLINK_GBPS.get(gpu.get("compute_capability") or "") for gpu in gpus]
        speeds = [speed for speed in told if speed]
        if len(speeds) < len(gpus):
            return Expected(None, f"{link} of unknown speed")
        return Expected(count * min(speeds) * NVLINK_SHARE, link)
    if link not in PCIE_SHARE:
        return Expected(None, "the link is unknown")
    ways = [expected_of_pcie(gpu) for gpu in gpus]
    slowest = min(ways, key=lambda way: way.gbps or 0.0)
    if slowest.gbps is None:
        return slowest
    share = PCIE_SHARE[link] if p2p else min(PCIE_SHARE[link], STAGED_SHARE)
    return Expected(slowest.gbps * share, f"{slowest.why} over {link}{'' if p2p else ' without P2P'}")


def expected_of_all_reduce(topology: Topology, gpus: Sequence[str], p2p: Callable[[str, str], bool]) -> Expected:
    """What the links between GPUs let one expect of an all-reduce's bus bandwidth: a ring is as slow as the slowest of them.

    Args:
        topology: The topology.
        gpus: The GPUs.
        p2p: Whether CUDA lets one reach the other's memory.
    """
    if len(gpus) < 2:
        return Expected(None, "there is one GPU")
    pairs = {(one, other): expected_of_pair(topology, one, other, p2p(one, other)) for one, other in permutations(gpus, 2)}
    unknown = next((way for way in pairs.values() if way.gbps is None), None)
    if unknown:
        return unknown
    (one, other), slowest = min(pairs.items(), key=lambda pair: pair[1].gbps or 0.0)
    gbps = slowest.gbps or 0.0
    if nvlinks(topology.link(one, other)):
        switched = topology.nvswitches or topology.of(one).get("fabric_state")
        return slowest if switched else Expected(gbps * BRIDGED_SHARE, f"{slowest.why} without NVSwitch")
    return Expected(gbps * SHARED_SHARE, f"{slowest.why} for {len(gpus)} GPUs") if len(gpus) > 2 else slowest


def bus_factor(count: int) -> float:
    """Share of an all-reduce's bytes that each link carries, by which nccl-tests makes its bandwidth comparable with that of links."""
    return 2 * (count - 1) / count


def read_topology(path: Path | None) -> Topology:
    """Read what the module ``gpu_info`` has returned.

    Args:
        path: File with its result as JSON, ``-`` for standard input; None for nothing.

    Raises:
        UnmeasuredError: The file cannot be read, or is of something else.
    """
    if path is None:
        return Topology()
    try:
        found = json.loads(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"))
        gpus = [{**gpu, "index": gpu["index"], "uuid": gpu["uuid"]} for gpu in found["gpus"]]
        return Topology(gpus, found["topology"], found["nvswitches"], found["fabric_manager"])
    except OSError as error:
        raise UnmeasuredError(f"The topology cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UnmeasuredError(f"{path} is not what the module gpu_info returns: {type(error).__name__}: {error}") from error


def expect_known(gpus: Sequence[str], topology: Topology) -> None:
    """Refuse GPUs that a topology does not know; an empty one knows nothing, and none knows a MIG device by its UUID.

    Args:
        gpus: The GPUs.
        topology: The topology.

    Raises:
        UnmeasuredError: It does not know one of them.
    """
    strangers = [gpu for gpu in gpus if topology.uuid(gpu) is None and not gpu.startswith("MIG-") and (topology.gpus or ":" in gpu)]
    if strangers:
        known = ", ".join(str(gpu["index"]) for gpu in topology.gpus) or "unknown without --topology"
        raise UnmeasuredError(f"GPU {', '.join(strangers)} is not on this host, whose GPUs are {known}.")


def usual_causes(topology: Topology, environment: Mapping[str, str], root: Path = Path("/")) -> list[str]:
    """What usually makes GPUs hang, slow or wrong: first what is so on this host, then what cannot be told from here.

    Args:
        topology: The topology.
        environment: Variables of the environment.
        root: Where ``dev``, ``proc`` and ``sys`` are.
    """
    here = []
    if topology.fabric.get("needed") and not topology.fabric.get("running"):
        here.append("The fabric manager does not run, without which NVSwitches carry nothing: systemctl status nvidia-fabricmanager.")
    for name in ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_P2P_LEVEL"):
        if value := environment.get(name):
            here.append(f"{name}={value} is set: it keeps NCCL from the direct way.")
    with contextlib.suppress(OSError):
        filesystem = os.statvfs(root / SHM)
        size = filesystem.f_frsize * filesystem.f_blocks
        if size < SHM_BYTES:
            here.append(f"/{SHM} has only {size // MIB} MiB, which NCCL shares between processes: give it {SHM_BYTES // GIB} GiB or more.")
    if not topology.gpus:
        here.append("Without --topology nobody knows whether NVSwitches need a fabric manager that does not run.")
    if any(root.glob("sys/class/iommu/*")):
        here.append(
            "The IOMMU is on, and so may be ACS, which sends P2P over PCIe through the processor or nowhere: turn ACS off in the firmware and on the "
            "bridges (lspci -vvv, ACSCtl must say SrcValid-), and boot with iommu=pt, or without the IOMMU on bare metal."
        )
    else:
        here.append("ACS on PCIe bridges sends P2P through the processor or nowhere (lspci -vvv, ACSCtl must say SrcValid-).")
    if "NCCL_P2P_DISABLE" not in environment:
        here.append("If it goes well with NCCL_P2P_DISABLE=1, P2P is the cause.")
    return [*here, "The kernel's log tells of GPUs and NVLinks that fail (dmesg, lines with Xid or NVRM); NCCL tells more with NCCL_DEBUG=INFO."]


@dataclass
class Worker:
    """A child that touches GPUs.

    Attributes:
        name: Who it is, for people.
        process: Its process, which leads a session of its own.
        pipe: What it tells, a JSON document a line.
        log: What it and the libraries in it print.
        events: What it has told.
        doing: What it said that it was about to do.
    """

    name: str
    process: subprocess.Popen[bytes]
    pipe: IO[bytes]
    log: IO[bytes]
    events: list[Event] = field(default_factory=list)
    doing: str = "starting"

    def hear(self) -> bool:
        """Take in a line of what it tells; False when it has said its last."""
        line = self.pipe.readline()
        if not line.endswith(b"\n"):
            return False
        event = json.loads(line)
        self.doing = event.get("doing", self.doing)
        self.events.append(event)
        return True

    def last_words(self) -> str:
        """The end of what it has printed, without the places in the code that a traceback names."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").splitlines()
        told = [line for line in lines if line.strip() and not line.startswith((" ", "Traceback"))]
        return " | ".join(told[-4:])[-1500:]

    def end(self) -> bool:
        """Kill it and what it has started; False when it stays, which only a process in the driver does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        try:
            self.process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            return False
        return True


class Workers:
    """Children that touch GPUs together; none outlives the ``with`` statement.

    Attributes:
        all: The children, in the order of their start.
    """

    def __init__(self, environment: Mapping[str, str], limit: float, deadline: float) -> None:
        """Remember what all of them share.

        Args:
            environment: Their environment.
            limit: The time limit in seconds, for the message.
            deadline: When it ends, by ``time.monotonic``.
        """
        self.all: list[Worker] = []
        self._environment = dict(environment)
        self._limit = limit
        self._deadline = deadline

    def __enter__(self) -> Workers:
        """Nothing has been started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave none behind."""
        for worker in self.all:
            worker.end()
            worker.pipe.close()
            worker.log.close()

    def start(self, name: str, order: Mapping[str, Any]) -> None:
        """Start a child.

        Args:
            name: Who it is, for people.
            order: What it shall do.
        """
        receive, send = os.pipe()
        log = tempfile.TemporaryFile()  # noqa: SIM115 - read when the child has failed, closed at the end
        try:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps({**order, "pipe": send, "parent": os.getpid()})],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[send],
                env=self._environment,
                start_new_session=True,
            )
        finally:
            os.close(send)
        self.all.append(Worker(name, process, os.fdopen(receive, "rb", buffering=0), log))

    def hear(self) -> None:
        """Hear the children until all have ended well.

        Raises:
            HangError: One has not ended in time.
            UnmeasuredError: One has failed.
        """
        with selectors.DefaultSelector() as selector:
            for worker in self.all:
                selector.register(worker.pipe, selectors.EVENT_READ, worker)
            while selector.get_map():
                ready = selector.select(max(0.0, self._deadline - time.monotonic()))
                if not ready:
                    raise HangError(self._hang())
                for key, dummy in ready:
                    if not key.data.hear():
                        selector.unregister(key.fileobj)
                        self._expect_good_end(key.data)

    def _hang(self) -> str:
        steps: dict[str, list[str]] = {}
        for worker in self.all:
            if worker.process.poll() is None:
                steps.setdefault(worker.doing, []).append(worker.name)
        where = "; ".join(f"{', '.join(names)}: {step}" for step, names in steps.items())
        stuck = [worker.name for worker in self.all if not worker.end()]
        held = f" {', '.join(stuck)} cannot be killed, because the driver does not let it go: reboot the host." if stuck else ""
        return f"No end within {self._limit:.0f} s, and so killed. Last heard of {where}.{held}"

    def _expect_good_end(self, worker: Worker) -> None:
        try:
            code = worker.process.wait(max(1.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise HangError(f"{self._hang()} {worker.name} was done by then.") from None
        if code != 0:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise UnmeasuredError(f"{worker.name} {how} ({worker.doing}): {worker.last_words() or 'it has printed nothing'}")


@dataclass
class Observed:
    """What the children have found.

    Attributes:
        devices: Each GPU by itself.
        pairs: Each pair of GPUs in each direction.
        reductions: Each size of an all-reduce, of the slowest rank.
        environment: Versions of what was used.
    """

    devices: list[Event] = field(default_factory=list)
    pairs: list[Event] = field(default_factory=list)
    reductions: list[Event] = field(default_factory=list)
    environment: Event = field(default_factory=dict)


def observe(gpus: Sequence[str], topology: Topology, backend: str, limit: float, observed: Observed) -> None:
    """Measure.

    Args:
        gpus: The GPUs.
        topology: The topology.
        backend: ``nccl``, or ``gloo`` for processes without GPUs.
        limit: Seconds that it may take.
        observed: Where to write, so that what was found before a hang is not lost.

    Raises:
        HangError: It has not come to an end.
        UnmeasuredError: It could not be measured.
    """
    deadline = time.monotonic() + limit
    environment = dict(os.environ)
    sizes = list(REDUCE_BYTES[backend])
    if backend == "nccl":
        # The order that nvidia-smi counts in; CUDA's own begins with the fastest.
        selected = ",".join(topology.uuid(gpu) or gpu for gpu in gpus)
        environment |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": selected}
        with Workers(environment, limit, deadline) as workers:
            workers.start("the process that copies", {"kind": "copies", "gpus": list(gpus)})
            try:
                workers.hear()
            finally:
                events = workers.all[0].events
                observed.devices = [event["device"] for event in events if "device" in event]
                observed.pairs = [event["pair"] for event in events if "pair" in event]
                observed.environment = next((event["environment"] for event in events if "environment" in event), {})
        # A rank holds two blocks of that size and NCCL's own buffers.
        room = min(device["free_mib"] for device in observed.devices) * MIB // 3
        sizes = [size for size in sizes if size <= room] or [MIB]
    else:
        # Gloo would look up the host's own name, and not every host knows that.
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as directory, Workers(environment, limit, deadline) as workers:
        order = {"kind": "rank", "count": len(gpus), "backend": backend, "rendezvous": f"{directory}/ranks", "sizes": sizes, "limit": limit}
        for rank, gpu in enumerate(gpus):
            workers.start(f"rank {rank} (GPU {gpu})", {**order, "rank": rank})
        try:
            workers.hear()
        finally:
            observed.reductions = list(_slowest(workers.all))
            told = (event["environment"] for event in workers.all[0].events if "environment" in event)
            observed.environment |= next(told, {})


def _slowest(ranks: Sequence[Worker]) -> Iterator[Event]:
    """An all-reduce is done when its last rank is, and right when it is right everywhere."""
    for told in zip(*([event["all_reduce"] for event in rank.events if "all_reduce" in event] for rank in ranks), strict=False):
        seconds = max(event["seconds"] for event in told)
        gbps = told[0]["bytes"] / seconds / GIGA
        yield {
            "bytes": told[0]["bytes"],
            "algorithm_gbps": round(gbps, 2),
            "bus_gbps": round(gbps * bus_factor(len(ranks)), 2),
            "wrong_ranks": [rank for rank, event in enumerate(told) if not event["correct"]],
        }


def judge(gpus: Sequence[str], topology: Topology, observed: Observed, floor: float) -> tuple[dict[str, Any], list[str], list[str]]:
    """Compare what was measured with what was to be expected.

    Args:
        gpus: The GPUs.
        topology: The topology.
        observed: What was measured.
        floor: Share of what was to be expected below which it is too slow.

    Returns:
        The figures for the report; what is wrong, in words; what is too slow, in words.
    """
    wrong: list[str] = []
    judged: list[Judged] = []
    reachable = {(pair["from"], pair["to"]): pair["p2p"] for pair in observed.pairs}
    devices, pairs = [], []
    for device in observed.devices:
        gpu = device["gpu"]
        up = Judged(f"host → GPU {gpu}", device["host_to_gpu_gbps"], expected_of_pcie(topology.of(gpu)), floor)
        down = Judged(f"GPU {gpu} → host", device["gpu_to_host_gbps"], expected_of_pcie(topology.of(gpu)), floor)
        judged += [up, down]
        devices.append({**device, "host_to_gpu": up.report(), "gpu_to_host": down.report()})
        wrong += [f"GPU {gpu}: data came back changed from its memory or the way to it."] if not device["correct"] else []
    for pair in observed.pairs:
        one, other, p2p = pair["from"], pair["to"], pair["p2p"]
        link = topology.link(one, other)
        copy = Judged(f"GPU {one} → {other}", pair["gbps"], expected_of_pair(topology, one, other, p2p), floor)
        judged.append(copy)
        pairs.append({"from": one, "to": other, "link": link, "p2p": p2p, "correct": pair["correct"], **copy.report()})
        if not pair["correct"]:
            wrong.append(f"GPU {one} → {other}: data arrived changed.")
        if nvlinks(link) and not p2p:
            wrong.append(f"GPU {one} → {other}: {link} connects them, but CUDA refuses P2P.")
    best = max(observed.reductions, key=lambda reduction: reduction["bus_gbps"], default=None)
    figures: dict[str, Any] = {"devices": devices, "pairs": pairs, "all_reduce": {"sizes": observed.reductions}}
    for reduction in observed.reductions:
        if reduction["wrong_ranks"]:
            ranks = ", ".join(gpus[rank] for rank in reduction["wrong_ranks"])
            wrong.append(f"An all-reduce of {reduction['bytes'] // MIB} MiB gives wrong sums on GPU {ranks}.")
    if best and len(gpus) > 1:
        expected = expected_of_all_reduce(topology, gpus, lambda one, other: reachable.get((one, other), False))
        whole = Judged(f"all-reduce over {len(gpus)} GPUs", best["bus_gbps"], expected, floor)
        judged.append(whole)
        figures["all_reduce"] |= whole.report()
    return figures, wrong, [str(figure) for figure in judged if figure.slow]


def examine(gpus: Sequence[str], topology: Topology, backend: str, floor: float, limit: float) -> tuple[int, dict[str, Any]]:
    """Measure and judge.

    Args:
        gpus: The GPUs.
        topology: The topology.
        backend: ``nccl``, or ``gloo`` for processes without GPUs.
        floor: Share of what was to be expected below which it is too slow.
        limit: Seconds that it may take.

    Returns:
        Exit status and report.
    """
    observed = Observed()
    faults: list[str] = []
    verdict = ""
    try:
        observe(gpus, topology, backend, limit, observed)
    except UnmeasuredError as error:
        verdict, faults = "unmeasured", [str(error)]
    except HangError as error:
        verdict, faults = "hangs", [str(error)]
    figures, wrong, slow = judge(gpus, topology, observed, floor)
    if not verdict:
        verdict, faults = ("wrong", wrong + slow) if wrong else ("slow", slow) if slow else ("good", [])
    report = {
        "verdict": verdict,
        "summary": summarise(gpus, verdict, faults, figures),
        "faults": faults,
        # A child that has failed before it found its GPUs has failed for another cause, and says so itself.
        "look_at": usual_causes(topology, os.environ) if verdict in FAULTS or (verdict != "good" and observed.environment) else [],
        "gpus": list(gpus),
        "backend": backend,
        "floor": floor,
        **figures,
        "environment": observed.environment,
    }
    return FAULTY if verdict in FAULTS else GOOD if verdict == "good" else UNMEASURED, report


def summarise(gpus: Sequence[str], verdict: str, faults: Sequence[str], figures: Mapping[str, Any]) -> str:
    """Put the report into one line."""
    who = f"GPU {gpus[0]}" if len(gpus) == 1 else f"GPUs {','.join(gpus)}"
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return f"{who}: {verdict}: {faults[0]}{more}"
    parts = []
    if figures["pairs"]:
        speeds = [pair["gbps"] for pair in figures["pairs"]]
        parts.append(f"copies between them at {min(speeds):.1f} to {max(speeds):.1f} GB/s")
    parts += [f"memory of GPU {device['gpu']} at {device['memory_gbps']:.0f} GB/s" for device in figures["devices"][:1]]
    sizes = figures["all_reduce"]["sizes"]
    if len(gpus) > 1:
        parts.append(f"all-reduce at {max(size['bus_gbps'] for size in sizes):.1f} GB/s")
    return f"{who}: {verdict}: {', '.join([*parts, 'all sums and copies right'])}"


# What follows runs in the children.


def work(order: Mapping[str, Any]) -> None:
    """Do what the parent wants, and tell it.

    Args:
        order: What to do, the number of the pipe to tell it by, and the process that wants it.
    """
    die_with(order["parent"])
    with os.fdopen(order["pipe"], "w", buffering=1, encoding="utf-8") as pipe:

        def tell(**event: object) -> None:
            pipe.write(f"{json.dumps(event)}\n")

        tell(doing="loading torch")
        torch = importlib.import_module("torch")
        if order["kind"] == "copies":
            copy(torch, order["gpus"], tell)
        else:
            reduce(torch, order, tell)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that does: a child left behind would hold the GPUs.

    Args:
        parent: Process that started this one.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("The parent has gone.")


def copy(torch: Torch, gpus: Sequence[str], tell: Callable[..., None]) -> None:
    """Copy on each GPU, between it and the host, and between each two.

    Args:
        torch: The library.
        gpus: The GPUs, in CUDA's order.
        tell: Tells the parent.
    """
    tell(doing="asking CUDA for the GPUs")
    if not torch.cuda.is_available() or torch.cuda.device_count() != len(gpus):
        raise SystemExit(f"CUDA finds {torch.cuda.device_count()} of the {len(gpus)} GPUs {', '.join(gpus)} (torch {torch.__version__}).")
    tell(environment={"torch": torch.__version__, "cuda": torch.version.cuda})
    free = []
    for place, gpu in enumerate(gpus):
        tell(doing=f"GPU {gpu}: initialising")
        free.append(torch.cuda.mem_get_info(place)[0])
    # Source and target of a copy, and the pattern that the target is compared with.
    elements = min(COPY_BYTES, min(free) // 4) // 4
    blocks = []
    for place, gpu in enumerate(gpus):
        tell(doing=f"GPU {gpu}: copying on itself and from the host")
        pattern = torch.arange(elements, dtype=torch.int32, device=f"cuda:{place}")
        host = torch.arange(elements, dtype=torch.int32).pin_memory()
        target = torch.zeros_like(pattern)
        figures = {
            # A copy on the GPU reads and writes.
            "memory_gbps": 2 * copied(torch, target, pattern, [place]),
            "host_to_gpu_gbps": copied(torch, target.zero_(), host, [place]),
        }
        arrived = torch.equal(target, pattern)
        host.zero_()
        figures["gpu_to_host_gbps"] = copied(torch, host, pattern, [place])
        back = torch.equal(host, torch.arange(elements, dtype=torch.int32))
        tell(
            device={
                "gpu": gpu,
                "name": torch.cuda.get_device_name(place),
                "free_mib": free[place] // MIB,
                **{name: round(figure, 2) for name, figure in figures.items()},
                "correct": arrived and back,
            }
        )
        blocks.append((pattern, target))
    for one, other in permutations(range(len(gpus)), 2):
        tell(doing=f"GPU {gpus[one]} → {gpus[other]}: copying")
        target = blocks[other][1].zero_()
        gbps = copied(torch, target, blocks[one][0], [one, other])
        tell(
            pair={
                "from": gpus[one],
                "to": gpus[other],
                "p2p": torch.cuda.can_device_access_peer(one, other),
                "gbps": round(gbps, 2),
                "correct": torch.equal(target, blocks[other][0]),
            }
        )


def copied(torch: Torch, target: Torch, source: Torch, places: Sequence[int]) -> float:
    """Return at how many GB/s a tensor is copied into another.

    Args:
        torch: The library.
        target: Where to.
        source: What.
        places: Numbers of the GPUs that take part.
    """

    def rounds(count: int) -> float:
        begin = time.perf_counter()
        for dummy in range(count):
            target.copy_(source, non_blocking=True)
        for place in places:
            torch.cuda.synchronize(place)
        return time.perf_counter() - begin

    rounds(3)  # wakes the links up
    return float(source.numel() * source.element_size() * COPY_ROUNDS / rounds(COPY_ROUNDS) / GIGA)


def reduce(torch: Torch, order: Mapping[str, Any], tell: Callable[..., None]) -> None:
    """Take part in the all-reduces as one rank.

    Args:
        torch: The library.
        order: What to do.
        tell: Tells the parent.
    """
    backend, rank, count = order["backend"], order["rank"], order["count"]
    distributed = importlib.import_module("torch.distributed")
    device = "cpu"
    if backend == "nccl":
        device = f"cuda:{rank}"
        tell(doing="initialising its GPU")
        torch.cuda.set_device(rank)
        tell(environment={"nccl": ".".join(map(str, torch.cuda.nccl.version()))})
    else:
        tell(environment={"torch": torch.__version__})
    tell(doing=f"waiting for the other ranks ({backend})")
    # The parent's time limit shall strike first, because it can tell more.
    distributed.init_process_group(
        backend, init_method=f"file://{order['rendezvous']}", rank=rank, world_size=count, timeout=timedelta(seconds=2 * order["limit"] + 60)
    )
    for size in order["sizes"]:
        tell(doing=f"all-reduce of {size // MIB} MiB")
        pattern = torch.arange(size // 4, dtype=torch.int32, device=device).remainder_(PATTERN).to(torch.float32)
        block = pattern * (rank + 1)
        distributed.all_reduce(block)
        correct = torch.equal(block, pattern.mul_(count * (count + 1) // 2))
        del pattern
        block.zero_()
        seconds = reduced(torch, distributed, block, REDUCE_ROUNDS[backend], device)
        tell(all_reduce={"bytes": size, "seconds": seconds, "correct": correct})
    tell(doing="leaving the other ranks")
    distributed.destroy_process_group()


def reduced(torch: Torch, distributed: Torch, block: Torch, count: int, device: str) -> float:
    """Return how many seconds an all-reduce takes.

    Args:
        torch: The library.
        distributed: Its part for processes.
        block: What to reduce.
        count: Number of rounds to take the mean of.
        device: Where ``block`` is.
    """

    def rounds(number: int) -> float:
        begin = time.perf_counter()
        for dummy in range(number):
            distributed.all_reduce(block)
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    rounds(2)  # sets the channels up
    return rounds(count) / count


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description="Try the GPUs of one vLLM instance: copies between each two, and an all-reduce over all. "
        "Exit status: 0 good, 1 slow, wrong or hanging, 2 not measured."
    )
    parser.add_argument("--gpus", type=_gpus, help="indices (as nvidia-smi counts; 0:1 is MIG device 1 of GPU 0) or UUIDs, separated by commas")
    parser.add_argument(
        "--topology", type=Path, help="what the module gpu_info has returned, as JSON (- reads it); without it, only hangs and wrong data are faults"
    )
    parser.add_argument("--backend", choices=list(REDUCE_BYTES), default="nccl", help="gloo tries processes without GPUs, without expectations")
    parser.add_argument("--floor", type=_share, default=0.7, help="share of the expected bandwidth below which it is too slow (0.7)")
    parser.add_argument("--timeout", type=_seconds, default=120.0, help="seconds after which it counts as hanging (120)")
    parser.add_argument("--report", type=Path, help="file that the report is written to as well, but only if all is good")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker is None and arguments.gpus is None:
        parser.error("--gpus is missing: say which GPUs to try, for instance --gpus 0,1")
    return arguments


def _gpus(text: str) -> list[str]:
    gpus = [gpu.strip() for gpu in text.split(",")]
    unclear = [gpu for gpu in gpus if not re.fullmatch(r"\d+(:\d+)?|(GPU|MIG)-\S+", gpu)]
    if unclear:
        raise argparse.ArgumentTypeError(
            f"{', '.join(map(repr, unclear))}: a GPU is named by its index or its UUID, and parted from others by a comma"
        )
    if len(set(gpus)) < len(gpus):
        raise argparse.ArgumentTypeError(f"{text!r} names a GPU twice")
    return gpus


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: it must be between 0 (nothing is too slow) and 1")
    return share


def _seconds(text: str) -> float:
    seconds = float(text)
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no time limit: it must be more than 0 seconds")
    return seconds


def _terminated(_number: int, _frame: object) -> None:
    """Leave by an exception, so that no child is left behind."""
    raise SystemExit(128 + signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, report."""
    arguments = arguments_of(argv)
    if arguments.worker is not None:
        work(arguments.worker)
        return GOOD
    signal.signal(signal.SIGTERM, _terminated)
    try:
        topology = read_topology(arguments.topology)
        expect_known(arguments.gpus, topology)
    except UnmeasuredError as error:
        code, report = UNMEASURED, {"verdict": "unmeasured", "summary": str(error), "faults": [str(error)], "look_at": [], "gpus": arguments.gpus}
    else:
        code, report = examine(arguments.gpus, topology, arguments.backend, arguments.floor, arguments.timeout)
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")
    sys.stdout.flush()
    if arguments.report and code == GOOD:
        arguments.report.parent.mkdir(parents=True, exist_ok=True)
        arguments.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.stderr.write(f"{' '.join([report['summary'], *report['look_at']])}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
