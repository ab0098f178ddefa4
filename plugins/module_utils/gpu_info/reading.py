# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read what ``nvidia-smi`` prints.

Its XML has changed with the driver: names that exist only before R535 or only since then are tried one after the other. ``nvidia-smi(1)`` says that
its output is not kept compatible, so whatever is missing is None rather than an error.

Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info.facts import Gpu, MigInstance

UNTOLD = ("", "N/A", "[N/A]", "None", "Unknown Error", "[Unknown Error]", "GPU access blocked", "Requested functionality has been deprecated")
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
GPU_LINE = re.compile(r"^GPU (\d+): .*\(UUID: (\S+)\)")
MIG_LINE = re.compile(r"^\s+MIG (\S+)\s+Device\s+(\d+):\s+\(UUID: (\S+)\)")
LINK_LINE = re.compile(r"^\s+Link \d+: (?:([\d.]+) GB/s|<inactive>)", re.IGNORECASE)


class ReadingError(Exception):
    """nvidia-smi has printed something else than asked for."""


@dataclass(frozen=True)
class Summary:
    """The parts of ``nvidia-smi -q -x`` that do not belong to one GPU.

    Attributes:
        driver: Version of the driver.
        cuda: Highest version of CUDA that it supports.
        gpus: The XML of each GPU, in nvidia-smi's order.
    """

    driver: str | None
    cuda: str | None
    gpus: tuple[ElementTree.Element, ...]


@dataclass(frozen=True)
class Links:
    """The NVLinks of a GPU.

    Attributes:
        up: Speed in one direction in GB/s of each that is up.
        down: Number of those that are down.
    """

    up: tuple[float, ...] = ()
    down: int = 0


@dataclass(frozen=True)
class Matrix:
    """A matrix of ``nvidia-smi topo``.

    Attributes:
        cells: What stands in the row of a GPU and the column of another, by their numbers.
        cpu_affinity: Processors close to a GPU, by its number.
        numa_affinity: NUMA nodes close to a GPU, by its number, as nvidia-smi prints them.
    """

    cells: Mapping[tuple[int, int], str] = field(default_factory=dict)
    cpu_affinity: Mapping[int, str] = field(default_factory=dict)
    numa_affinity: Mapping[int, str] = field(default_factory=dict)

    def square(self, indices: list[int]) -> tuple[tuple[str, ...], ...]:
        """The cells of those GPUs in their order; nothing if one of them is missing."""
        if any((row, column) not in self.cells for row in indices for column in indices):
            return ()
        return tuple(tuple(self.cells[row, column] for column in indices) for row in indices)


@dataclass(frozen=True)
class Besides:
    """What is known of GPUs besides ``nvidia-smi -q -x``, by UUID but for the NUMA nodes.

    Attributes:
        indices: Number by which nvidia-smi knows it.
        compute_capabilities: For instance ``9.0``.
        links: Its NVLinks.
        mig_names: Profile and UUID of its MIG devices, by their number.
        matrix: ``nvidia-smi topo -m``.
        numa_nodes: NUMA node by PCI address, as the kernel writes it.
    """

    indices: Mapping[str, int] = field(default_factory=dict)
    compute_capabilities: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, Links] = field(default_factory=dict)
    mig_names: Mapping[str, Mapping[int, tuple[str, str]]] = field(default_factory=dict)
    matrix: Matrix = field(default_factory=Matrix)
    numa_nodes: Mapping[str, int] = field(default_factory=dict)


def summary(xml: str) -> Summary:
    """Read ``nvidia-smi -q -x``.

    Raises:
        ReadingError: It is no such XML.
    """
    try:
        log = ElementTree.fromstring(xml)  # noqa: S314 - of the host's own driver, not of a stranger
    except ElementTree.ParseError as error:
        raise ReadingError(f"nvidia-smi -q -x has not printed XML: {error}") from error
    return Summary(_text(log, "driver_version"), _text(log, "cuda_version"), tuple(log.iterfind("gpu")))


def gpu(node: ElementTree.Element, place: int, besides: Besides) -> Gpu:
    """Read a GPU.

    Args:
        node: Its XML.
        place: Its place among nvidia-smi's GPUs, from 0.
        besides: What else is known.
    """
    uuid = _text(node, "uuid") or ""
    index = besides.indices.get(uuid, place)
    bus_id = kernel_address(_text(node, "pci/pci_bus_id") or node.get("id") or "")
    links = besides.links.get(uuid, Links())
    pcie = "pci/pci_gpu_link_info/pcie_gen/"
    widths = "pci/pci_gpu_link_info/link_widths/"
    return Gpu(
        index=index,
        uuid=uuid,
        name=_text(node, "product_name") or "",
        architecture=_text(node, "product_architecture") or "",
        compute_capability=besides.compute_capabilities.get(uuid),
        pci_bus_id=bus_id,
        numa_node=besides.numa_nodes.get(bus_id, _only_node(besides.matrix.numa_affinity.get(index))),
        cpu_affinity=besides.matrix.cpu_affinity.get(index),
        memory_mib=_whole(node, "fb_memory_usage/total") or 0,
        memory_used_mib=_whole(node, "fb_memory_usage/used") or 0,
        ecc=_switch(node, "ecc_mode/current_ecc"),
        ecc_pending=_switch(node, "ecc_mode/pending_ecc"),
        ecc_uncorrectable=_uncorrectable(node.find("ecc_errors/volatile")),
        ecc_uncorrectable_total=_uncorrectable(node.find("ecc_errors/aggregate")),
        mig=_switch(node, "mig_mode/current_mig"),
        mig_pending=_switch(node, "mig_mode/pending_mig"),
        mig_instances=tuple(_mig(mig, besides.mig_names.get(uuid, {})) for mig in node.iterfind("mig_devices/mig_device")),
        persistence=_switch(node, "persistence_mode"),
        power_w=_number(
            node,
            "gpu_power_readings/instant_power_draw",
            "gpu_power_readings/average_power_draw",
            "gpu_power_readings/power_draw",
            "power_readings/power_draw",
        ),
        power_limit_w=_number(node, "gpu_power_readings/current_power_limit", "power_readings/enforced_power_limit", "power_readings/power_limit"),
        nvlinks=len(links.up),
        nvlinks_down=links.down,
        nvlink_gbps=min(links.up, default=None),
        pcie_generation=_whole(node, f"{pcie}current_link_gen"),
        pcie_generation_max=_whole(node, f"{pcie}max_link_gen"),
        pcie_width=_whole(node, f"{widths}current_link_width"),
        pcie_width_max=_whole(node, f"{widths}max_link_width"),
        fabric_state=_text(node, "fabric/state"),
        fabric_status=_text(node, "fabric/status"),
        virtualization=_text(node, "gpu_virtualization_mode/virtualization_mode"),
    )


def queried(csv: str) -> tuple[dict[str, int], dict[str, str]]:
    """Read ``nvidia-smi --query-gpu=index,uuid,compute_cap --format=csv,noheader``: number and compute capability by UUID."""
    rows = [[cell.strip() for cell in line.split(",")] for line in csv.splitlines()]
    known = [row for row in rows if len(row) == 3 and row[0].isdigit()]
    return {row[1]: int(row[0]) for row in known}, {row[1]: row[2] for row in known if row[2] not in UNTOLD}


def nvlinks(status: str) -> dict[str, Links]:
    """Read ``nvidia-smi nvlink --status``: the NVLinks of a GPU by its UUID."""
    found: dict[str, Links] = {}
    uuid = ""
    for line in status.splitlines():
        if head := GPU_LINE.match(line):
            uuid = head[2]
            found[uuid] = Links()
        elif uuid and (link := LINK_LINE.match(line)):
            before = found[uuid]
            found[uuid] = Links((*before.up, float(link[1])), before.down) if link[1] else Links(before.up, before.down + 1)
    return found


def mig_names(listing: str) -> dict[str, dict[int, tuple[str, str]]]:
    """Read ``nvidia-smi -L``: profile and UUID of the MIG devices of a GPU, by its UUID and their number."""
    found: dict[str, dict[int, tuple[str, str]]] = {}
    uuid = ""
    for line in listing.splitlines():
        if head := GPU_LINE.match(line):
            uuid = head[2]
        elif uuid and (mig := MIG_LINE.match(line)):
            found.setdefault(uuid, {})[int(mig[2])] = (mig[1], mig[3])
    return found


def matrix(text: str) -> Matrix:
    """Read ``nvidia-smi topo -m`` or ``nvidia-smi topo -p2p r``; network cards are left out, and so is the legend."""
    lines = [ESCAPE.sub("", line) for line in text.splitlines()]
    head = next((place for place, line in enumerate(lines) if re.match(r"\s*GPU\d+\s", f"{line} ")), None)
    if head is None:
        return Matrix()
    devices = lines[head].split("CPU Affinity")[0].split()
    cells: dict[tuple[int, int], str] = {}
    cpu: dict[int, str] = {}
    numa: dict[int, str] = {}
    for line in lines[head + 1 :]:
        row = re.match(r"\s*GPU(\d+)\s+(.*)", line)
        if not row:
            continue
        number, words = int(row[1]), row[2].split()
        cells |= {(number, int(device[3:])): word for device, word in zip(devices, words, strict=False) if device.startswith("GPU")}
        affinity = dict(zip([name for name in ("CPU", "NUMA") if f"{name} Affinity" in lines[head]], words[len(devices) :], strict=False))
        cpu[number], numa[number] = affinity.get("CPU", ""), affinity.get("NUMA", "")
    told = [{number: word for number, word in column.items() if word not in UNTOLD} for column in (cpu, numa)]
    return Matrix(cells, *told)


def kernel_address(bus_id: str) -> str:
    """Return a PCI address as the kernel writes it: ``0000:3b:00.0`` for nvidia-smi's ``00000000:3B:00.0``."""
    domain, dummy, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if rest else bus_id.lower()


def _mig(node: ElementTree.Element, names: Mapping[int, tuple[str, str]]) -> MigInstance:
    index = _whole(node, "index") or 0
    profile, uuid = names.get(index, ("", ""))
    return MigInstance(
        index=index,
        profile=profile,
        uuid=uuid,
        gpu_instance=_whole(node, "gpu_instance_id") or 0,
        compute_instance=_whole(node, "compute_instance_id") or 0,
        memory_mib=_whole(node, "fb_memory_usage/total") or 0,
        memory_used_mib=_whole(node, "fb_memory_usage/used") or 0,
    )


def _uncorrectable(counts: ElementTree.Element | None) -> int | None:
    """Sum of a GPU's uncorrectable errors: one number before Ampere, one for each kind of memory since, and by kind of code since R550."""
    if counts is None:
        return None
    total = _whole(counts, "double_bit/total")
    if total is not None:
        return total
    told = [_whole(counts, child.tag) for child in counts if "uncorrectable" in child.tag]
    numbers = [number for number in told if number is not None]
    return sum(numbers) if numbers else None


def _only_node(nodes: str | None) -> int | None:
    """Number of a NUMA node; None for several (``0-1``), which say nothing about where the GPU is."""
    return int(nodes) if nodes and nodes.isdigit() else None


def _text(node: ElementTree.Element, path: str) -> str | None:
    text = (node.findtext(path) or "").strip()
    return None if text in UNTOLD else text


def _switch(node: ElementTree.Element, path: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(_text(node, path) or "")


def _number(node: ElementTree.Element, *paths: str) -> float | None:
    """Number in the first of ``paths`` that has one, without its unit (``81559 MiB``, ``16x``, ``69.55 W``)."""
    for path in paths:
        if number := re.match(r"\d+(?:\.\d+)?", _text(node, path) or ""):
            return float(number[0])
    return None


def _whole(node: ElementTree.Element, path: str) -> int | None:
    number = _number(node, path)
    return None if number is None else int(number)
