# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host has of NVIDIA's driver: GPUs, kernels, packages, what DKMS has built, what is loaded, and whether all of it belongs together.

Runs on managed hosts, from Ansible's modules and as a program that the role ``nvidia_driver`` installs: the standard library only.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NVIDIA = 0x10DE
FIRST_TURING, FIRST_BLACKWELL = 0x1E00, 0x2900
"""PCI device ids rise with the generations where it matters here: NVIDIA's open module begins with Turing, and is alone since Blackwell."""
LAST_BRANCH_BEFORE_TURING = 580
"""Last branch of the driver that knows Maxwell, Pascal and Volta."""

DRIVER_PACKAGE = re.compile(
    r"(?:libnvidia-(?!container)|nvidia-(?!container|cuda-|cudnn|fs|gds|peermem)|libcuda1$|libcudadebugger1$|libnvcuvid1$|libnvoptix1$|libnvsdm|cuda-drivers"
    r"|libxnvctrl|firmware-nvidia-gsp|xserver-xorg-video-nvidia)"
)
KERNEL_PACKAGE = re.compile(r"nvidia-(?:open-)?kernel-(?:open-)?dkms$")
IMAGE_PACKAGE = re.compile(r"linux-image-((?:cloud-|rt-)?(?:amd64|arm64))$")
FABRIC_MANAGER = re.compile(r"nvidia-fabricmanager(?:-\d+)?$")
OWN_DAEMONS = ("nvidia-persiste", "nv-fabricmanage", "nvidia-smi")
"""Who has GPUs open without computing on them, by the first 15 characters of the name, which is what the kernel keeps."""
LOG_LINES = 12

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a program; returns its exit code (127 where there is none) and what it printed."""


class DriverError(Exception):
    """What is asked for cannot be had on this host."""


def run(command: Sequence[str]) -> tuple[int, str]:
    """Run a program in the C locale; its standard output and error come as one text."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env={**os.environ, "LC_ALL": "C"}, errors="replace"
        )
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout


@dataclass(frozen=True)
class Device:
    """A device on the PCI bus.

    Attributes:
        address: Place on the bus, such as ``0000:17:00.0``.
        device: PCI device id.
    """

    address: str
    device: int

    @property
    def modules(self) -> frozenset[str]:
        """Kernel modules that drive it: ``open``, ``proprietary``, or both."""
        if self.device < FIRST_TURING:
            return frozenset({"proprietary"})
        return frozenset({"open"}) if self.device >= FIRST_BLACKWELL else frozenset({"open", "proprietary"})

    def __str__(self) -> str:
        """Address, id and generation, for messages."""
        generation = {
            frozenset({"proprietary"}): "older than Turing",
            frozenset({"open"}): "Blackwell or newer",
        }.get(self.modules, "Turing to Hopper")
        return f"{self.address} [{NVIDIA:04x}:{self.device:04x}], {generation}"


@dataclass(frozen=True)
class Kernel:
    """A kernel that the host may boot.

    Attributes:
        name: As ``uname -r`` has it.
        headers: Whether modules can be built for it.
    """

    name: str
    headers: bool


@dataclass(frozen=True)
class Package:
    """A package of the driver.

    Attributes:
        name: Its name.
        version: Version of the package.
        status: dpkg's three letters: what is wanted, what is, and whether something is wrong, such as ``hi `` or ``iF ``.
    """

    name: str
    version: str
    status: str

    @property
    def upstream(self) -> str:
        """Version of the driver in it."""
        return self.version.rpartition(":")[2].partition("-")[0]

    @property
    def installed(self) -> bool:
        """Whether it is there as a whole."""
        return self.status[1:2] == "i"

    @property
    def broken(self) -> str:
        """What dpkg has not brought to an end, as a predicate; nothing where all is well or gone."""
        if self.status[2:3] == "R":
            return "must be installed again"
        words = {"F": "is half-configured", "H": "is half-installed", "U": "is unpacked, not configured"}
        return words.get(self.status[1:2], "awaits triggers" if self.status[1:2] in {"W", "t"} else "")


@dataclass(frozen=True)
class Built:
    """What DKMS has of a module for one kernel.

    Attributes:
        module: Name of the module in DKMS.
        version: Its version.
        kernel: Name of the kernel; empty where the source alone is there.
        state: ``added``, ``built`` or ``installed``.
    """

    module: str
    version: str
    kernel: str
    state: str


@dataclass(frozen=True)
class SecureBoot:
    """What the firmware asks of kernel modules.

    Attributes:
        on: Whether unsigned modules are refused.
        said: Where that is known from.
        enrolled: Whether the key that DKMS signs with is enrolled; None where nobody can tell.
    """

    on: bool
    said: str
    enrolled: bool | None = None


@dataclass(frozen=True)
class Host:
    """A host, asked anew at every call.

    Attributes:
        root: Where its file system begins.
        run: Runs its programs.
        own_kernel: Whether the running kernel is its own: in a container it is the outer machine's.
    """

    root: Path = Path("/")
    run: Run = run
    own_kernel: bool = True
    release: str = field(default_factory=platform.release)

    def _read(self, path: str) -> str:
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return ""

    def devices(self) -> tuple[list[Device], list[Device]]:
        """List the GPUs and the NVSwitches on the PCI bus, by sysfs: no driver is needed, and no lspci."""
        gpus: list[Device] = []
        switches: list[Device] = []
        for path in sorted((self.root / "sys/bus/pci/devices").glob("*")):
            at = str(path.relative_to(self.root))
            vendor, device, kind = (self._read(f"{at}/{name}") for name in ("vendor", "device", "class"))
            if not vendor or int(vendor, 16) != NVIDIA:
                continue
            found = Device(path.name, int(device, 16))
            # 0x0300 VGA, 0x0302 3D controller; 0x0680 a bridge of another kind, as which NVSwitches up to Hopper's present themselves.
            {0x0300: gpus, 0x0302: gpus, 0x0680: switches}.get(int(kind, 16) >> 8, []).append(found)
        return gpus, switches

    def secure_boot(self) -> SecureBoot:
        """Ask mokutil, or where that is not installed the firmware's variable."""
        code, said = self.run(["mokutil", "--sb-state"])
        if code != 127:
            on = "SecureBoot enabled" in said
            source = f"mokutil --sb-state says: {' '.join(said.split())}"
        else:
            variables = sorted((self.root / "sys/firmware/efi/efivars").glob("SecureBoot-8be4df61-*"))
            # Four bytes of attributes, then the value.
            on = bool(variables) and variables[0].read_bytes()[4:5] == b"\x01"
            source = f"the firmware's variable {variables[0].name} is {int(on)}" if variables else "the host has not been started by UEFI"
        if not on or code == 127:
            return SecureBoot(on, source)
        dummy, tested = self.run(["mokutil", "--test-key", str(self.root / "var/lib/dkms/mok.pub")])
        return SecureBoot(on, source, "is already enrolled" in tested)

    def kernels(self) -> list[Kernel]:
        """List the kernels that are installed, and the running one where it is the host's own."""
        directory = self.root / "lib/modules"
        names = {path.name for path in directory.glob("*") if (path / "kernel").is_dir() or (path / "modules.builtin").is_file()}
        if self.own_kernel:
            names.add(self.release)
        return [Kernel(name, (directory / name / "build" / "include").is_dir()) for name in sorted(names)]

    def packages(self) -> tuple[list[Package], list[str]]:
        """List the driver's packages that are there in whole or in part, and the flavours of the kernel that are kept up to date."""
        dummy, said = self.run(["dpkg-query", "--show", "--showformat=${Package}\t${Version}\t${db:Status-Abbrev}\n"])
        rows = [line.split("\t") for line in said.splitlines() if line.count("\t") == 2]
        there = [(name, version, status) for name, version, status in rows if status[1:2] not in {"n", "c"}]
        flavours = [found[1] for name, dummy, status in there if status[1:2] == "i" and (found := IMAGE_PACKAGE.match(name))]
        return [Package(*row) for row in there if DRIVER_PACKAGE.match(row[0])], flavours

    def built(self) -> list[Built]:
        """Read ``dkms status``."""
        code, said = self.run(["dkms", "status"])
        return parse_status(said) if code == 0 else []

    def log(self, version: str) -> str:
        """Return the end of what the compiler said when DKMS last failed on that version, errors first; nothing where it has not failed."""
        logs = sorted((self.root / "var/lib/dkms").glob(f"nvidia*/{version}/build/make.log"))
        lines = [line for path in logs for line in path.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"\berror\b|\*\*\*", line, re.IGNORECASE)]
        return "\n".join((errors or lines)[-LOG_LINES:])

    def loaded(self) -> str:
        """Return the version of the module that is loaded, or nothing."""
        if version := self._read("sys/module/nvidia/version"):
            return version
        found = re.search(r"Kernel Module.*?\s(\d{3,}\.[\d.]+)", self._read("proc/driver/nvidia/version"))
        return found[1] if found else ""

    def nouveau(self) -> bool:
        """Tell whether the kernel's own driver is loaded, which keeps NVIDIA's out."""
        return (self.root / "sys/module/nouveau").is_dir()

    def library(self) -> str:
        """Return the version of the library that programs load, or nothing."""
        for pattern in ("usr/lib/*-linux-gnu/libnvidia-ml.so.1", "usr/lib64/libnvidia-ml.so.1", "usr/lib/libnvidia-ml.so.1"):
            for link in sorted(self.root.glob(pattern)):
                if found := re.search(r"libnvidia-ml\.so\.(\d{3,}\.[\d.]+)$", str(link.resolve())):
                    return found[1]
        return ""

    def users(self) -> list[str]:
        """Name the processes that have a GPU open, but for the driver's own daemons: ``name (pid)``."""
        found = []
        for directory in sorted((self.root / "proc").glob("[0-9]*"), key=lambda path: int(path.name)):
            try:
                targets = [str(entry.readlink()) for entry in (directory / "fd").iterdir()]
            except OSError:
                continue  # it has ended
            name = self._read(f"proc/{directory.name}/comm")
            if name not in OWN_DAEMONS and any(re.match(r"/dev/nvidia(?:\d+|-uvm|-caps)", target) for target in targets):
                found.append(f"{name} ({directory.name})")
        return found


def parse_status(said: str) -> list[Built]:
    """Read what ``dkms status`` prints, of DKMS 2 (``nvidia, 1.0, kernel, arch: state``) and 3 (``nvidia/1.0, kernel, arch: state``)."""
    found = []
    for line in said.splitlines():
        if match := re.match(r"(nvidia[\w-]*)(?:/|, )([\d.]+)(?:, ([^,:]+), [^,:]+)?: (\w+)", line.strip()):
            found.append(Built(match[1], match[2], match[3] or "", match[4]))
    return found


def choose_module(gpus: Sequence[Device], wanted: str, branch: int) -> str:
    """Decide which kernel module drives all GPUs of a host.

    Args:
        gpus: The GPUs; without any, every module will do, and ``auto`` means the open one.
        wanted: ``auto``, ``open`` or ``proprietary``.
        branch: Branch of the driver, such as 580.

    Returns:
        ``open`` or ``proprietary``.

    Raises:
        DriverError: a GPU needs the other one, or two GPUs need different ones, or the branch does not know one of them any more.
    """
    old = [gpu for gpu in gpus if gpu.modules == {"proprietary"}]
    if old and branch > LAST_BRANCH_BEFORE_TURING:
        raise DriverError(
            f"Branch {branch} of the driver does not know {'; '.join(map(str, old))}: branch {LAST_BRANCH_BEFORE_TURING} is the last that does. "
            f'Set nvidia_driver_branch to "{LAST_BRANCH_BEFORE_TURING}", or take the GPU out.'
        )
    possible = frozenset({"open", "proprietary"}).intersection(*(gpu.modules for gpu in gpus))
    if not possible:
        raise DriverError(f"No kernel module drives all GPUs of this host: {'; '.join(map(str, gpus))}. Take those of one generation out.")
    if wanted == "auto":
        return "open" if "open" in possible else "proprietary"
    if wanted not in possible:
        other = next(iter(possible))
        against = "; ".join(str(gpu) for gpu in gpus if wanted not in gpu.modules)
        raise DriverError(f"The {wanted} kernel module does not drive {against}. Set nvidia_driver_kernel_module to {other}, or to auto.")
    return wanted


def explain_secure_boot(state: SecureBoot) -> str:
    """Say why modules that DKMS builds would not be loaded and what to do; nothing where they would."""
    if not state.on or state.enrolled:
        return ""
    unknown = state.enrolled is None
    known = "whether DKMS' key is enrolled cannot be told without mokutil" if unknown else "the key that DKMS signs with is not enrolled"
    return (
        f"Secure Boot is on ({state.said}), and {known}: the kernel would refuse the module that DKMS builds. One of: (1) enrol DKMS' key: "
        "apt-get install dkms mokutil openssl; dkms generate_mok; mokutil --import /var/lib/dkms/mok.pub; restart the host and confirm the key on "
        "its console; (2) install modules that an enrolled key of your own has signed, and set nvidia_driver_secure_boot to accepted; "
        "(3) switch Secure Boot off in the firmware. Nothing has been installed."
    )


def explain_packages(packages: Sequence[Package]) -> list[str]:
    """Say which packages apt has left half-way, and what mends them."""
    broken = [f"{package.name} {package.version} {package.broken}" for package in packages if package.broken]
    if not broken:
        return []
    return [
        f"{'; '.join(broken)}. Until that is mended, apt ends with an error whatever it is asked for. Mend the cause below and run the role again, "
        "which lets dpkg go on (by hand: dpkg --configure --pending); or take the packages out: apt-get purge "
        f"{' '.join(package.name for package in packages if package.broken)}."
    ]


def explain_modules(host: Host, version: str, kernels: Sequence[Kernel], built: Sequence[Built]) -> list[str]:
    """Say for which kernels there is no module of that version, and why."""
    lines = []
    states = {entry.kernel: entry.state for entry in built if entry.version == version}
    name = next((entry.module for entry in built if entry.version == version), "nvidia")
    for kernel in kernels:
        if states.get(kernel.name) == "installed":
            continue
        if not kernel.headers:
            other = (
                "that is the running one: where no repository has its headers any more, start a newer kernel first"
                if kernel.name == host.release
                else f"or remove the kernel where nobody starts it: apt-get purge linux-image-{kernel.name}"
            )
            lines.append(
                f"For kernel {kernel.name} DKMS cannot build the driver: its headers are not installed. Install linux-headers-{kernel.name}; {other}."
            )
            continue
        log = host.log(version)
        why = f"The end of /var/lib/dkms/{name}/{version}/build/make.log:\n{log}" if log else f"See dkms build {name}/{version} -k {kernel.name}."
        lines.append(
            f"For kernel {kernel.name} DKMS has not built the driver {version} (state: {states.get(kernel.name, 'none')}): started into that kernel, "
            "the host would have no GPU. Take a version of the driver that builds against this kernel (nvidia_driver_version), or a kernel that the "
            f"driver knows; then run the role again. {why}"
        )
    return lines


def explain_drift(host: Host, packages: Sequence[Package], gpus: Sequence[Device], current: Sequence[Built]) -> list[str]:
    """Say what of the driver does not belong together, which NVML would call ``Driver/library version mismatch``, and what mends it.

    Args:
        host: The host.
        packages: The driver's packages.
        gpus: The GPUs on the bus.
        current: What DKMS has built.
    """
    loaded, library = host.loaded(), host.library()
    lines = []
    if host.nouveau() and gpus:
        lines.append("The kernel's own driver, nouveau, has the GPUs: NVIDIA's cannot take them before the host is restarted.")
    if loaded and library and loaded != library:
        done = {entry.kernel for entry in current if entry.state == "installed" and entry.version == library}
        ready = not host.own_kernel or host.release in done
        remedy = (
            "Drain the host and restart it: the next start loads the module that belongs to the libraries."
            if ready
            else f"A restart does not mend that, as DKMS has no module {library} for the running kernel {host.release}: build it first, "
            "then drain the host and restart it."
        )
        lines.append(
            f"The kernel has loaded module {loaded}, and the libraries are {library}: NVML, nvidia-smi and CUDA fail with 'Driver/library version "
            f"mismatch'. {remedy} Or install the libraries of {loaded} again. What has upgraded one without the other: /var/log/apt/history.log."
        )
    driver = loaded or library
    for package in packages:
        if FABRIC_MANAGER.match(package.name) and package.installed and driver and package.upstream != driver:
            lines.append(
                f"{package.name} is {package.upstream}, and the driver is {driver}: the fabric manager ends unless both are exactly the same, and "
                f"without it CUDA does not start on NVSwitch hosts. Install {package.name} {driver}, or set nvidia_driver_version to a version that "
                "the repository has of both."
            )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what is loaded with what is installed: print what does not belong together, and return 1 where anything does not."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--textfile", metavar="DIRECTORY", help="write a metric for node_exporter's textfile collector there")
    parser.add_argument("--foreign-kernel", action="store_true", help="the running kernel is not this host's own, but the outer machine's")
    options = parser.parse_args(arguments)
    host = Host(own_kernel=not options.foreign_kernel)
    packages, dummy = host.packages()
    found = explain_drift(host, packages, host.devices()[0], host.built())
    if options.textfile:
        path = Path(options.textfile) / "nvidia_driver_drift.prom"
        draft = path.with_suffix(".draft")
        draft.write_text(
            "# HELP sovereign_nvidia_driver_drift Whether the loaded module, the libraries and the fabric manager are not of one version.\n"
            f"# TYPE sovereign_nvidia_driver_drift gauge\nsovereign_nvidia_driver_drift {int(bool(found))}\n"
        )
        draft.chmod(0o644)
        draft.replace(path)
    for line in found:
        sys.stderr.write(f"{line}\n")
    if not found:
        sys.stdout.write(f"loaded: {host.loaded() or 'none'}; libraries: {host.library() or 'none'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
