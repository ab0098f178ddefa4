# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask a host about its GPUs, and find out why it has none that can be used.

Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info import reading
from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info.facts import Driver, FabricManager, Gpu, GpuInfo, group_by_nvlink

NVIDIA = "0x10de"
# PCI classes: display controllers (VGA and 3D), and bridges of no standard kind, which is what NVSwitches before Blackwell are.
DISPLAY = "0x03"
OTHER_BRIDGE = "0x0680"
# A GPU that has fallen off the bus can hold nvidia-smi for ever.
TIMEOUT_S = 60
TIMED_OUT = 124
VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")
FABRIC_SERVICE = "nvidia-fabricmanager.service"


@dataclass(frozen=True)
class Answer:
    """What a command has answered.

    Attributes:
        code: Its exit status.
        text: What it has printed; nvidia-smi prints its complaints to standard output.
    """

    code: int
    text: str


@dataclass(frozen=True)
class PciDevice:
    """A device of NVIDIA's on the PCI bus.

    Attributes:
        address: For instance ``0000:3b:00.0``.
        kind: Its class, for instance ``0x030200``.
        driver: The kernel's driver that holds it; empty for none.
        numa_node: NUMA node of its slot; None where the firmware does not tell.
    """

    address: str
    kind: str
    driver: str
    numa_node: int | None


Run = Callable[[Sequence[str]], Answer]
Find = Callable[[str], "str | None"]


def run_command(command: Sequence[str]) -> Answer:
    """Run a command for at most ``TIMEOUT_S`` seconds."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return Answer(TIMED_OUT, f"no answer within {TIMEOUT_S} s")
    except OSError as error:
        return Answer(127, str(error))
    return Answer(done.returncode, done.stdout)


def find_program(name: str) -> str | None:
    """Return the path of a program, also where only root looks for it."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/bin"]))


def gather(run: Run = run_command, find: Find = find_program, root: Path = Path("/")) -> GpuInfo:
    """Return what GPUs this host has.

    It does not fail on a host without one, nor where the driver is broken: ``reason`` says why there is none.

    Args:
        run: Runs a command.
        find: Finds a program.
        root: Where ``sys`` and ``proc`` are.
    """
    devices = list(_pci(root))
    on_bus = [device for device in devices if device.kind.startswith(DISPLAY)]
    nvswitches = sum(device.kind.startswith(OTHER_BRIDGE) for device in devices) + _switch_bridges(root)
    smi = find("nvidia-smi")
    queried = run([smi, "-q", "-x"]) if smi else Answer(127, "")
    try:
        summary = reading.summary(queried.text) if queried.code == 0 else reading.Summary(None, None, ())
    except reading.ReadingError as error:
        queried, summary = Answer(1, str(error)), reading.Summary(None, None, ())
    driver = _driver(run, find, root, smi, queried, summary.cuda)
    fabric = _fabric_manager(run, find, needed=nvswitches > 0)
    if not smi or not summary.gpus:
        return GpuInfo(reason=_reason(on_bus, driver, smi, queried), driver=driver, fabric_manager=fabric, nvswitches=nvswitches)
    besides = _besides(run, smi, devices)
    gpus = tuple(sorted((reading.gpu(node, place, besides) for place, node in enumerate(summary.gpus)), key=lambda gpu: gpu.index))
    indices = [gpu.index for gpu in gpus]
    topology = besides.matrix.square(indices)
    p2p = reading.matrix(run([smi, "topo", "-p2p", "r"]).text).square(indices)
    return GpuInfo(
        gpus=gpus,
        problems=tuple(_problems(gpus, on_bus, driver, fabric)),
        driver=driver,
        fabric_manager=fabric,
        nvswitches=nvswitches,
        topology=topology,
        p2p=p2p,
        nvlink_groups=group_by_nvlink(gpus, topology, p2p),
    )


def _besides(run: Run, smi: str, devices: Sequence[PciDevice]) -> reading.Besides:
    indices, capabilities = reading.queried(run([smi, "--query-gpu=index,uuid,compute_cap", "--format=csv,noheader"]).text)
    return reading.Besides(
        indices=indices,
        compute_capabilities=capabilities,
        links=reading.nvlinks(run([smi, "nvlink", "--status"]).text),
        mig_names=reading.mig_names(run([smi, "-L"]).text),
        matrix=reading.matrix(run([smi, "topo", "-m"]).text),
        numa_nodes={device.address: device.numa_node for device in devices if device.numa_node is not None},
    )


def _pci(root: Path) -> Iterator[PciDevice]:
    for device in sorted(root.glob("sys/bus/pci/devices/*")):
        if _content(device / "vendor") == NVIDIA:
            driver = device / "driver"
            node = _content(device / "numa_node")
            yield PciDevice(
                address=device.name,
                kind=_content(device / "class"),
                driver=driver.resolve().name if driver.exists() else "",
                numa_node=int(node) if node.isdigit() else None,
            )


def _switch_bridges(root: Path) -> int:
    """Number of the ConnectX-7 functions through which NVSwitches since Blackwell are managed: they are not on the PCI bus themselves.

    NVIDIA's guide to the fabric manager tells them from network cards of the same kind by SW_MNG in their vital product data.
    """
    found = 0
    for product_data in root.glob("sys/class/infiniband/*/device/vpd"):
        try:
            found += b"SW_MNG" in product_data.read_bytes()
        except OSError:  # a card whose product data cannot be read is a network card
            continue
    return found


def _driver(run: Run, find: Find, root: Path, smi: str | None, queried: Answer, cuda: str | None) -> Driver:
    module = _content(root / "sys/module/nvidia/version") or _first(
        r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)", _content(root / "proc/driver/nvidia/version")
    )
    library = _library(run, find, root)
    if not library:
        told = f"{queried.text}\n{run([smi, '--version']).text}" if smi else ""
        library = _first(r"NVML (?:library )?version\s*:\s*(\d+\.\d+(?:\.\d+)?)", told)
    consistent = _same(module, library) if module and library else None
    return Driver(kernel_module=module or None, library=library or None, consistent=consistent, cuda=cuda)


def _library(run: Run, find: Find, root: Path) -> str:
    """Version of NVML by the name of the file that programs load; empty where its name does not tell."""
    ldconfig = find("ldconfig")
    if not ldconfig:
        return ""
    for path in re.findall(r"libnvidia-ml\.so\.1 .*=> (\S+)", run([ldconfig, "-p"]).text):
        if version := _first(r"libnvidia-ml\.so\.(\d+\.\d+(?:\.\d+)?)$", str((root / path.lstrip("/")).resolve())):
            return version
    return ""


def _same(module: str, library: str) -> bool:
    """Whether two versions are one: nvidia-smi --version tells only two of the library's three numbers."""
    return module == library or module.startswith(f"{library}.")


def _fabric_manager(run: Run, find: Find, needed: bool) -> FabricManager:
    program = find("nv-fabricmanager")
    if not program:
        return FabricManager(needed=needed)
    version = VERSION.search(run([program, "--version"]).text)
    systemctl = find("systemctl")
    return FabricManager(
        needed=needed,
        installed=True,
        running=systemctl is not None and run([systemctl, "is-active", "--quiet", FABRIC_SERVICE]).code == 0,
        version=version[0] if version else None,
    )


def _reason(on_bus: Sequence[PciDevice], driver: Driver, smi: str | None, queried: Answer) -> str:
    """Why no GPU can be used, and how to mend it."""
    where = ", ".join(device.address for device in on_bus)
    if not on_bus and not driver.kernel_module and not smi:
        return "This host has no NVIDIA device on its PCI bus."
    if driver.consistent is False or "version mismatch" in queried.text:
        return (
            f"The kernel has loaded NVIDIA's driver {driver.kernel_module or 'of one version'}, but its library is of {driver.library or 'another'}: "
            "the packages were upgraded under a running driver. Reboot the host, or stop all that uses the GPUs and load the nvidia modules anew; "
            "hold the driver's packages so that it does not happen again."
        )
    if on_bus and not driver.kernel_module:
        return _without_driver(on_bus, where)
    if not smi:
        return "NVIDIA's driver is loaded, but nvidia-smi is not installed: install the driver's utilities (nvidia-utils) of the same version."
    said = " ".join(queried.text.split())
    if queried.code == 0 or "No devices were found" in said:
        return (
            f"NVIDIA's driver is loaded, but has brought up no GPU (on the PCI bus: {where or 'none'}): the kernel's log says why (dmesg, lines with "
            "NVRM or Xid)."
        )
    if not on_bus:
        return f"This host has no NVIDIA device on its PCI bus, and nvidia-smi fails: {said or f'exit status {queried.code}'}"
    return f"nvidia-smi fails: {said or f'exit status {queried.code}'}. The kernel's log may say more (dmesg, lines with NVRM or Xid)."


def _without_driver(on_bus: Sequence[PciDevice], where: str) -> str:
    holders = {device.driver for device in on_bus}
    if "nouveau" in holders:
        return (
            f"The driver nouveau holds {where}: blacklist it (blacklist nouveau and options nouveau modeset=0 in /etc/modprobe.d), rebuild the "
            "initramfs, install NVIDIA's driver and reboot."
        )
    if holders == {"vfio-pci"}:
        return f"All GPUs ({where}) are given to virtual machines (vfio-pci): nothing of them is left for this host."
    return (
        f"{where} has no driver: NVIDIA's is not installed or not loaded. Install it with the headers of the running kernel; where it is installed, "
        "modprobe nvidia says why it does not load (Secure Boot refuses a module whose key is not enrolled)."
    )


def _problems(gpus: Sequence[Gpu], on_bus: Sequence[PciDevice], driver: Driver, fabric: FabricManager) -> Iterator[str]:
    """What is wrong although nvidia-smi answers."""
    if driver.consistent is False:
        yield (
            f"The kernel's driver is {driver.kernel_module}, its library {driver.library}: programs that start from now on will fail. "
            "Reboot, and hold the driver's packages."
        )
    listed = {gpu.pci_bus_id for gpu in gpus}
    lost = [device.address for device in on_bus if device.driver != "vfio-pci" and device.address not in listed]
    if lost:
        yield (
            f"On the PCI bus, but unknown to nvidia-smi: {', '.join(lost)}. The kernel's log says why (dmesg, lines with NVRM or Xid; Xid 79 is a "
            "GPU that has fallen off the bus)."
        )
    yield from _fabric_problems(gpus, driver, fabric)
    for gpu in gpus:
        yield from _problems_of(gpu)


def _fabric_problems(gpus: Sequence[Gpu], driver: Driver, fabric: FabricManager) -> Iterator[str]:
    if fabric.needed and not fabric.installed:
        yield f"The GPUs hang on NVSwitches, but the fabric manager is not installed: install nvidia-fabricmanager of version {driver.kernel_module}."
    elif fabric.needed and not fabric.running:
        yield f"The GPUs hang on NVSwitches, but {FABRIC_SERVICE} is not active: systemctl enable --now {FABRIC_SERVICE}, and read its journal."
    if fabric.needed and fabric.version and driver.kernel_module and fabric.version != driver.kernel_module:
        yield f"The fabric manager is of version {fabric.version}, the driver of {driver.kernel_module}: they must be of the same."
    waiting = [gpu for gpu in gpus if gpu.fabric_state and (gpu.fabric_state != "Completed" or gpu.fabric_status not in (None, "Success"))]
    if waiting:
        states = "; ".join(f"GPU {gpu.index}: {gpu.fabric_state}, {gpu.fabric_status or 'status unknown'}" for gpu in waiting)
        where = "here" if fabric.needed else "where the NVSwitches are"
        yield f"Not registered with the NVSwitch fabric ({states}), so that CUDA will not start: the journal of {FABRIC_SERVICE} {where} says why."


def _problems_of(gpu: Gpu) -> Iterator[str]:
    if gpu.mig_pending is not None and gpu.mig_pending != gpu.mig:
        yield f"GPU {gpu.index}: MIG is {_state(gpu.mig)} until it is reset (nvidia-smi --gpu-reset -i {gpu.index}), then {_state(gpu.mig_pending)}."
    if gpu.ecc_pending is not None and gpu.ecc_pending != gpu.ecc:
        yield f"GPU {gpu.index}: ECC is {_state(gpu.ecc)} until it is reset (nvidia-smi --gpu-reset -i {gpu.index}), then {_state(gpu.ecc_pending)}."
    if gpu.ecc_uncorrectable:
        yield (
            f"GPU {gpu.index}: {gpu.ecc_uncorrectable} uncorrectable memory errors since the driver was loaded: drain it and reset it; if they come "
            "back, have it replaced."
        )
    if gpu.nvlinks and gpu.nvlinks_down:
        yield f"GPU {gpu.index}: {gpu.nvlinks_down} of {gpu.nvlinks + gpu.nvlinks_down} NVLinks are down (nvidia-smi nvlink --status -i {gpu.index})."
    # A hypervisor shows its guests a link of its own making.
    if gpu.pcie_width and gpu.pcie_width_max and gpu.pcie_width < gpu.pcie_width_max and not gpu.virtualization:
        yield f"GPU {gpu.index}: its PCIe link has {gpu.pcie_width} of {gpu.pcie_width_max} lanes: look at slot, riser and the firmware's settings."


def _state(switch: bool | None) -> str:
    return {True: "on", False: "off", None: "of unknown state"}[switch]


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""


def _content(path: Path) -> str:
    """What a small file says; empty where it is not there or does not let itself be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
