# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The words in which the project speaks of a host's GPUs.

Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

P2P_OK = "OK"


@dataclass(frozen=True)
class MigInstance:
    """A slice of a GPU that CUDA sees as a device of its own.

    Attributes:
        index: Number of the MIG device on its GPU, as nvidia-smi counts.
        profile: For instance ``3g.40gb``; empty where nvidia-smi does not tell.
        uuid: What ``CUDA_VISIBLE_DEVICES`` takes to select it; empty where nvidia-smi does not tell.
        gpu_instance: Number of the GPU instance that it belongs to.
        compute_instance: Number of the compute instance in that.
        memory_mib: Its memory in MiB.
        memory_used_mib: What of that is in use, in MiB.
    """

    index: int
    profile: str
    uuid: str
    gpu_instance: int
    compute_instance: int
    memory_mib: int
    memory_used_mib: int


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    What a GPU does not support, or a driver does not tell, is None.

    Attributes:
        index: Number by which nvidia-smi knows it: the order on the PCI bus.
        uuid: What ``CUDA_VISIBLE_DEVICES`` takes to select it whatever the order.
        name: Name of the product, for instance ``NVIDIA H100 80GB HBM3``.
        architecture: For instance ``Hopper``.
        compute_capability: For instance ``9.0``.
        pci_bus_id: As the kernel writes it, for instance ``0000:3b:00.0``.
        numa_node: NUMA node that its PCI slot belongs to.
        cpu_affinity: Processors that are close to it, as a list of ranges, for instance ``0-15,32-47``.
        memory_mib: Its memory in MiB.
        memory_used_mib: What of that is in use, in MiB.
        ecc: Whether ECC is on.
        ecc_pending: Whether ECC will be on after the next reset of the GPU.
        ecc_uncorrectable: Uncorrectable errors since the driver was loaded.
        ecc_uncorrectable_total: Uncorrectable errors of its life.
        mig: Whether MIG is on.
        mig_pending: Whether MIG will be on after the next reset of the GPU.
        mig_instances: Slices that it has been cut into.
        persistence: Whether the driver keeps it initialised while nobody uses it.
        power_w: What it draws, in watts.
        power_limit_w: What it may draw, in watts.
        nvlinks: Number of its NVLinks that are up.
        nvlinks_down: Number of its NVLinks that are down.
        nvlink_gbps: Raw speed of one of its NVLinks in one direction, in GB/s; the slowest where they differ.
        pcie_generation: Generation that its PCIe link runs at now: an idle link may be slowed down to save power.
        pcie_generation_max: Highest generation that GPU and slot both can.
        pcie_width: Lanes of its PCIe link now.
        pcie_width_max: Lanes that GPU and slot both have.
        fabric_state: State of its registration with the NVSwitch fabric, for instance ``Completed`` or ``In Progress``.
        fabric_status: How that went, for instance ``Success``.
        virtualization: How a hypervisor has given it to this host, for instance ``Pass-Through``; None on bare metal.
    """

    index: int
    uuid: str
    name: str
    architecture: str
    compute_capability: str | None
    pci_bus_id: str
    numa_node: int | None
    cpu_affinity: str | None
    memory_mib: int
    memory_used_mib: int
    ecc: bool | None
    ecc_pending: bool | None
    ecc_uncorrectable: int | None
    ecc_uncorrectable_total: int | None
    mig: bool | None
    mig_pending: bool | None
    mig_instances: tuple[MigInstance, ...]
    persistence: bool | None
    power_w: float | None
    power_limit_w: float | None
    nvlinks: int
    nvlinks_down: int
    nvlink_gbps: float | None
    pcie_generation: int | None
    pcie_generation_max: int | None
    pcie_width: int | None
    pcie_width_max: int | None
    fabric_state: str | None
    fabric_status: str | None
    virtualization: str | None


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        kernel_module: Version of the module that the kernel has loaded; None where it has none.
        library: Version of the library (NVML) that programs talk to; None where there is none.
        consistent: Whether both are of one version; None where one of them is missing. If they are not, no program can use a GPU.
        cuda: Highest version of CUDA that the driver supports.
    """

    kernel_module: str | None = None
    library: str | None = None
    consistent: bool | None = None
    cuda: str | None = None


@dataclass(frozen=True)
class FabricManager:
    """The service that sets up NVSwitches; without it, CUDA does not start on GPUs that hang on them.

    Attributes:
        needed: Whether the host has NVSwitches that it must manage.
        installed: Whether its program is there.
        running: Whether its service is active.
        version: Its version, which must be the driver's.
    """

    needed: bool = False
    installed: bool = False
    running: bool = False
    version: str | None = None


@dataclass(frozen=True)
class GpuInfo:
    """The GPUs of a host.

    Attributes:
        gpus: The GPUs, by index.
        reason: Why there is none that can be used, and how to mend it; empty where there is one.
        problems: What is wrong with GPUs, driver or fabric, and how to mend it, although nvidia-smi answers.
        driver: The driver.
        fabric_manager: The fabric manager.
        nvswitches: Number of NVSwitches that the host sees.
        topology: How a GPU (row) reaches another (column), rows and columns in the order of ``gpus``, in nvidia-smi's words: ``NV18`` (that many
            NVLinks), ``PIX``, ``PXB``, ``PHB``, ``NODE``, ``SYS``, and ``X`` for itself. Empty where nvidia-smi does not tell.
        p2p: Whether a GPU (row) may read another's memory (column): ``OK``, or nvidia-smi's word why not. Empty where nvidia-smi does not tell.
        nvlink_groups: Indices of GPUs: every GPU is in one group, and in a group each reaches each other by NVLink. One that has no such link is a
            group of its own.
    """

    gpus: tuple[Gpu, ...] = ()
    reason: str = ""
    problems: tuple[str, ...] = ()
    driver: Driver = Driver()
    fabric_manager: FabricManager = FabricManager()
    nvswitches: int = 0
    topology: tuple[tuple[str, ...], ...] = ()
    p2p: tuple[tuple[str, ...], ...] = ()
    nvlink_groups: tuple[tuple[int, ...], ...] = ()

    def link(self, one: int, other: int) -> str:
        """How the GPU of index ``one`` reaches that of index ``other``, in the words of ``topology``; empty where that is unknown."""
        place = {gpu.index: place for place, gpu in enumerate(self.gpus)}
        return self.topology[place[one]][place[other]] if self.topology else ""


def nvlinks_between(kind: str) -> int:
    """Return the number of NVLinks in a word of ``topology``: 18 for ``NV18``, 0 for ``SYS``."""
    return int(kind[2:]) if kind.startswith("NV") and kind[2:].isdigit() else 0


def group_by_nvlink(gpus: Sequence[Gpu], topology: Sequence[Sequence[str]], p2p: Sequence[Sequence[str]]) -> tuple[tuple[int, ...], ...]:
    """Divide GPUs into groups in which each reaches each other by NVLink.

    A GPU that is cut into MIG instances stays alone, because they may not reach another GPU; so does one whose P2P the driver refuses.

    Args:
        gpus: The GPUs, by index.
        topology: As in ``GpuInfo``.
        p2p: As in ``GpuInfo``.
    """

    def joined(one: int, other: int) -> bool:
        if gpus[one].mig or gpus[other].mig or not topology or not nvlinks_between(topology[one][other]):
            return False
        return not p2p or p2p[one][other] == p2p[other][one] == P2P_OK

    groups: list[list[int]] = []
    for place in range(len(gpus)):
        group = next((group for group in groups if all(joined(place, other) for other in group)), None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    return tuple(tuple(gpus[place].index for place in group) for group in groups)
