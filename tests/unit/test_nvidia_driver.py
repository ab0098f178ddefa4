"""What is told of a host's GPU driver, from a file system and programs that answer from a table; modes of GPUs; a directory of packages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils import nvidia_driver, nvidia_modes, package_directory
from ansible_collections.sovereign.dify.plugins.module_utils.nvidia_driver import (
    Device,
    DriverError,
    Host,
    Package,
    SecureBoot,
    choose_module,
    explain_drift,
    explain_modules,
    explain_packages,
    explain_secure_boot,
    parse_status,
)
from ansible_collections.sovereign.dify.plugins.module_utils.nvidia_modes import ModesError, Wanted, apply, parse_instances

KERNEL = "6.12.63+deb13-amd64"
P40, V100, T4, H100, B200 = (Device(f"0000:{number:02x}:00.0", device) for number, device in enumerate((0x1B38, 0x1DB6, 0x1EB8, 0x2330, 0x2901)))


class Programs:
    """Answers from a table; a program that is not in it is not installed."""

    def __init__(self, **answers: tuple[int, str]) -> None:  # noqa: D107
        self.answers = {name.replace("_", "-"): answer for name, answer in answers.items()}

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:  # noqa: D102
        for words in (" ".join(command[:2]), command[0]):
            if words in self.answers:
                return self.answers[words]
        return 127, f"No such file or directory: {command[0]!r}"


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def on_bus(root: Path, address: str, vendor: str, device: str, kind: str) -> None:
    for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
        path = root / "sys/bus/pci/devices" / address / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def test_gpus_and_nvswitches_are_found_on_the_bus_and_nothing_else_of_nvidia_or_others(tmp_path: Path) -> None:
    on_bus(tmp_path, "0000:17:00.0", "0x10de", "0x2330", "0x030200")
    on_bus(tmp_path, "0000:18:00.0", "0x10de", "0x2684", "0x030000")
    on_bus(tmp_path, "0000:18:00.1", "0x10de", "0x22ba", "0x040300")  # the sound of the graphics card before
    on_bus(tmp_path, "0000:05:00.0", "0x10de", "0x22a3", "0x068000")
    on_bus(tmp_path, "0000:00:02.0", "0x1a03", "0x2000", "0x030000")
    gpus, switches = Host(tmp_path).devices()
    assert [str(gpu) for gpu in gpus] == ["0000:17:00.0 [10de:2330], Turing to Hopper", "0000:18:00.0 [10de:2684], Turing to Hopper"]
    assert [switch.address for switch in switches] == ["0000:05:00.0"]


@pytest.mark.parametrize(
    ("gpus", "wanted", "chosen"),
    [
        ([], "auto", "open"),
        ([H100], "auto", "open"),
        ([T4, B200], "auto", "open"),
        ([V100], "auto", "proprietary"),
        ([V100, H100], "auto", "proprietary"),
        ([H100], "proprietary", "proprietary"),
    ],
)
def test_the_module_is_one_that_drives_all_gpus(gpus: list[Device], wanted: str, chosen: str) -> None:
    assert choose_module(gpus, wanted, 580) == chosen


@pytest.mark.parametrize(
    ("gpus", "wanted", "branch", "message"),
    [
        ([P40, T4], "open", 580, r"open kernel module does not drive 0000:00:00.0 \[10de:1b38\], older than Turing. Set nvidia_driver_kernel_module"),
        ([B200], "proprietary", 580, r"proprietary kernel module does not drive 0000:04:00.0 \[10de:2901\], Blackwell or newer"),
        ([V100, B200], "auto", 580, "No kernel module drives all GPUs"),
        ([V100], "auto", 590, r'Branch 590 of the driver does not know .*1db6.*Set nvidia_driver_branch to "580"'),
    ],
)
def test_what_cannot_drive_a_gpu_is_refused_with_the_gpu_and_the_remedy(gpus: list[Device], wanted: str, branch: int, message: str) -> None:
    with pytest.raises(DriverError, match=message):
        choose_module(gpus, wanted, branch)


@pytest.mark.parametrize(
    ("state", "key", "explained"),
    [
        ("SecureBoot enabled\n", "/var/lib/dkms/mok.pub is not enrolled\n", "the key that DKMS signs with is not enrolled"),
        ("SecureBoot enabled\n", "/var/lib/dkms/mok.pub is already enrolled\n", ""),
        ("SecureBoot disabled\n", "", ""),
        ("EFI variables are not supported on this system\n", "", ""),
    ],
)
def test_secure_boot_is_what_mokutil_says(tmp_path: Path, state: str, key: str, explained: str) -> None:
    host = Host(tmp_path, Programs(**{"mokutil --sb-state": (0, state), "mokutil --test-key": (0, key)}))
    said = explain_secure_boot(host.secure_boot())
    assert explained in said
    assert bool(said) == bool(explained)


@pytest.mark.parametrize("value", [0, 1])
def test_without_mokutil_secure_boot_is_what_the_firmware_says(tmp_path: Path, value: int) -> None:
    assert Host(tmp_path, Programs()).secure_boot() == SecureBoot(False, "the host has not been started by UEFI")
    variable = tmp_path / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    variable.parent.mkdir(parents=True)
    variable.write_bytes(bytes([6, 0, 0, 0, value]))
    said = explain_secure_boot(Host(tmp_path, Programs()).secure_boot())
    assert ("cannot be told without mokutil" in said) == bool(value)


def test_kernels_are_those_that_can_be_started_and_the_running_one_where_it_is_the_hosts_own(tmp_path: Path) -> None:
    write(tmp_path, **{f"lib__modules__{KERNEL}__modules.builtin": "", f"lib__modules__{KERNEL}__build__include__x": ""})
    write(tmp_path, **{"lib__modules__6.12.1-amd64__kernel__x": "", "lib__modules__5.10.0-amd64__updates__dkms__nvidia.ko": ""})
    found = {kernel.name: kernel.headers for kernel in Host(tmp_path, own_kernel=False, release="6.1.0-outer").kernels()}
    assert found == {KERNEL: True, "6.12.1-amd64": False}
    assert "6.1.0-outer" in {kernel.name for kernel in Host(tmp_path, release="6.1.0-outer").kernels()}


LISTED = "\n".join(
    [
        "nvidia-kernel-open-dkms\t580.95.05-1\tiF ",
        "libnvidia-ml1\t1:580.95.05-1\tii ",
        "libcuda1\t580.95.05-1\tun ",
        "nvidia-persistenced\t580.95.05-1\trc ",
        "nvidia-fabricmanager\t580.82.07-1\thi ",
        "nvidia-modprobe\t580.95.05-1\tiHR",
        "nvidia-container-toolkit-base\t1.18.0-1\tii ",
        "libnvidia-container1\t1.18.0-1\tii ",
        "linux-image-amd64\t6.12.63-1\tii ",
        "linux-image-6.12.63+deb13-amd64\t6.12.63-1\tii ",
    ]
)


def test_packages_are_the_drivers_and_what_dpkg_has_left_half_way_is_explained(tmp_path: Path) -> None:
    packages, flavours = Host(tmp_path, Programs(dpkg_query=(0, LISTED))).packages()
    assert {package.name: (package.upstream, package.installed) for package in packages} == {
        "nvidia-kernel-open-dkms": ("580.95.05", False),
        "libnvidia-ml1": ("580.95.05", True),
        "nvidia-fabricmanager": ("580.82.07", True),
        "nvidia-modprobe": ("580.95.05", False),
    }
    assert flavours == ["amd64"]
    (said,) = explain_packages(packages)
    assert said.startswith("nvidia-kernel-open-dkms 580.95.05-1 is half-configured; nvidia-modprobe 580.95.05-1 must be installed again.")
    assert "apt-get purge nvidia-kernel-open-dkms nvidia-modprobe." in said
    assert explain_packages([package for package in packages if package.installed]) == []


STATUS = f"""\
nvidia/580.95.05, {KERNEL}, x86_64: installed
nvidia/580.95.05, 6.12.48+deb13-amd64, x86_64: built
nvidia-current-open/550.163.01: added
nvidia, 535.1, 6.1.0-1-amd64, x86_64: installed (original_module exists)
zfs/2.3.2, {KERNEL}, x86_64: installed
"""


def test_what_dkms_says_is_read_of_both_its_releases() -> None:
    found = [(entry.module, entry.version, entry.kernel, entry.state) for entry in parse_status(STATUS)]
    assert found == [
        ("nvidia", "580.95.05", KERNEL, "installed"),
        ("nvidia", "580.95.05", "6.12.48+deb13-amd64", "built"),
        ("nvidia-current-open", "550.163.01", "", "added"),
        ("nvidia", "535.1", "6.1.0-1-amd64", "installed"),
    ]


def test_kernels_without_a_module_are_explained_each_by_its_cause(tmp_path: Path) -> None:
    lines = [*(f"  CC {number}.o" for number in range(30)), "nv-pci.c:226: error: too few arguments", "make: *** [all] Error 2", "Leaving directory"]
    log = "\n".join(lines)
    write(tmp_path, **{"var__lib__dkms__nvidia__580.95.05__build__make.log": log})
    host = Host(tmp_path, Programs(), release="6.12.99-amd64")
    kernels = [nvidia_driver.Kernel(KERNEL, True), nvidia_driver.Kernel("6.12.48+deb13-amd64", True), nvidia_driver.Kernel("6.12.99-amd64", False)]
    unbuilt, without_headers = explain_modules(host, "580.95.05", kernels, parse_status(STATUS))
    assert "For kernel 6.12.48+deb13-amd64 DKMS has not built the driver 580.95.05 (state: built)" in unbuilt
    assert unbuilt.endswith("nv-pci.c:226: error: too few arguments\nmake: *** [all] Error 2")
    assert "its headers are not installed. Install linux-headers-6.12.99-amd64; that is the running one" in without_headers


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sys__module__nvidia__version", "580.82.07\n"),
        (
            "proc__driver__nvidia__version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (x@y)\nGCC: 12\n",
        ),
        ("proc__driver__nvidia__version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed Aug 27 18:12:41 UTC 2025\n"),
    ],
)
def test_another_module_than_the_libraries_is_drift_and_the_remedy_depends_on_what_dkms_has(tmp_path: Path, path: str, text: str) -> None:
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / "libnvidia-ml.so.580.95.05").touch()
    (libraries / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.95.05")
    host = Host(tmp_path, Programs(), release=KERNEL)
    assert explain_drift(host, [], [], []) == []  # nothing is loaded
    write(tmp_path, **{path: text})
    (said,) = explain_drift(host, [], [], parse_status(STATUS))
    assert "has loaded module 580.82.07, and the libraries are 580.95.05" in said
    assert "Drain the host and restart it" in said
    (said,) = explain_drift(host, [], [], [])
    assert f"A restart does not mend that, as DKMS has no module 580.95.05 for the running kernel {KERNEL}" in said


def test_a_fabric_manager_of_another_version_and_nouveau_are_drift(tmp_path: Path) -> None:
    write(tmp_path, sys__module__nvidia__version="580.95.05", sys__module__nouveau__refcnt="1")
    packages = [Package("nvidia-fabricmanager-580", "580.82.07-1", "hi "), Package("nvidia-fabricmanager", "580.95.05-1", "hi ")]
    nouveau, fabric = explain_drift(Host(tmp_path, Programs()), packages, [H100], [])
    assert nouveau.startswith("The kernel's own driver, nouveau, has the GPUs")
    assert fabric.startswith("nvidia-fabricmanager-580 is 580.82.07, and the driver is 580.95.05")


def test_whoever_has_a_gpu_open_is_named_but_for_the_drivers_daemons(tmp_path: Path) -> None:
    daemon, others = (
        (7, "nvidia-persiste", "/dev/nvidia0"),
        ((41, "python3", "/dev/nvidia-uvm"), (9, "sshd", "/dev/null"), (50, "vllm", "/dev/nvidia3")),
    )
    for pid, name, target in (daemon, *others):
        descriptors = tmp_path / f"proc/{pid}/fd"
        descriptors.mkdir(parents=True)
        (tmp_path / f"proc/{pid}/comm").write_text(f"{name}\n")
        (descriptors / "5").symlink_to(target)
    assert Host(tmp_path).users() == ["python3 (41)", "vllm (50)"]


class Smi:
    """An nvidia-smi over GPUs that it can change; ``resets`` tells whether a mode takes effect at once."""

    def __init__(self, gpus: int = 2, immediate: bool = True, busy: bool = False, ecc: str = "Enabled") -> None:  # noqa: D107
        self.gpus = [{"ecc": ecc, "ecc_next": ecc, "mig": "Disabled", "mig_next": "Disabled"} for _ in range(gpus)]
        self.instances: list[list[str]] = [[] for _ in range(gpus)]
        self.immediate, self.busy = immediate, busy
        self.changes: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:  # noqa: D102
        words = " ".join(command)
        if command == nvidia_modes.QUERY:
            rows = [f"{index}, {gpu['ecc']}, {gpu['ecc_next']}, {gpu['mig']}, {gpu['mig_next']}" for index, gpu in enumerate(self.gpus)]
            return 0, "\n".join(rows)
        if command == nvidia_modes.LIST:
            lines = []
            for index, profiles in enumerate(self.instances):
                lines.append(f"GPU {index}: NVIDIA H100 80GB HBM3 (UUID: GPU-{index})")
                lines += [f"  MIG {profile:<12} Device  {number}: (UUID: MIG-{index}-{number})" for number, profile in enumerate(profiles)]
            return 0, "\n".join(lines)
        if self.busy:
            return 19, "In use by another client"
        self.changes.append(words.removeprefix("nvidia-smi "))
        index = int(command[command.index("-i") + 1])
        if "-e" in command or "-mig" in command:
            kind = "ecc" if "-e" in command else "mig"
            value = "Enabled" if command[-1] == "1" else "Disabled"
            self.gpus[index][f"{kind}_next"] = value
            if kind == "mig" and self.immediate:
                self.gpus[index]["mig"] = value
        elif "-dgi" in command:
            self.instances[index] = []
        elif "-cgi" in command:
            self.instances[index] = command[command.index("-cgi") + 1].split(",")
        return 0, ""


def test_gpus_are_divided_as_declared_and_a_second_run_changes_nothing() -> None:
    smi, wanted = Smi(), Wanted(True, {"0": ["3g.40gb", "1g.10gb"], "all": []})
    assert len(apply(smi, wanted, pretend=True).commands) == 1
    assert smi.changes == []
    outcome = apply(smi, wanted)
    assert smi.changes == ["-i 0 -mig 1", "mig -i 0 -cgi 1g.10gb,3g.40gb -C"]
    assert [str(gpu) for gpu in outcome.after] == ["GPU 0: ECC on, MIG 1g.10gb, 3g.40gb", "GPU 1: ECC on, MIG off"]
    assert apply(smi, wanted).commands == ()
    apply(smi, Wanted(None, {"0": ["7g.80gb"]}))
    assert smi.changes[2:] == ["mig -i 0 -dci", "mig -i 0 -dgi", "mig -i 0 -cgi 7g.80gb -C"]
    apply(smi, Wanted(None, {"0": []}))
    assert smi.changes[5:] == ["mig -i 0 -dci", "mig -i 0 -dgi", "-i 0 -mig 0"]


def test_a_mode_that_awaits_a_reset_is_told_and_nothing_is_divided_before() -> None:
    smi = Smi(immediate=False, ecc="Disabled")
    outcome = apply(smi, Wanted(True, {"1": ["7g.80gb"]}))
    assert smi.changes == ["-i 0 -e 1", "-i 1 -e 1", "-i 1 -mig 1"]
    assert outcome.pending == (0, 1)
    assert apply(smi, Wanted(True, {"1": ["7g.80gb"]})).pending == (0, 1)
    assert len(smi.changes) == 3


@pytest.mark.parametrize(
    ("smi", "wanted", "message"),
    [
        (Smi(busy=True), Wanted(False), r"nvidia-smi -i 0 -e 0 has ended with 19: In use by another client\. .*drain the host"),
        (Smi(ecc="[N/A]"), Wanted(True), "GPU 0 cannot correct errors in its memory"),
        (Smi(gpus=1), Wanted(None, {"3": []}), "MIG is declared for GPU 3, and the host has 0"),
        (lambda command: (9, "NVIDIA-SMI has failed"), Wanted(True), "has ended with 9: NVIDIA-SMI has failed"),
    ],
)
def test_what_a_gpu_does_not_do_is_told(smi: nvidia_modes.Run, wanted: Wanted, message: str) -> None:
    with pytest.raises(ModesError, match=message):
        apply(smi, wanted)


def test_instances_are_read_by_gpu() -> None:
    text = "GPU 0: A (UUID: x)\n  MIG 3g.20gb     Device  0: (UUID: y)\n  MIG 1g.5gb      Device  1: (UUID: z)\nGPU 1: A (UUID: w)\n"
    assert parse_instances(text) == {0: ("1g.5gb", "3g.20gb"), 1: ()}


def directory(path: Path, **packages: bytes) -> str:
    lines = []
    for name, content in packages.items():
        (path / f"{name}.deb").write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  ./{name}.deb\n")
    manifest = path / package_directory.MANIFEST
    manifest.write_text("".join(lines))
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def test_the_index_has_what_apt_compares(tmp_path: Path) -> None:
    found = package_directory.entries(tmp_path, directory(tmp_path, b=b"two", a=b"one"))
    text = package_directory.index(found, lambda path: f"Package: {path.stem}\nVersion: 1\n")
    sums = [hashlib.sha256(content).hexdigest() for content in (b"one", b"two")]
    assert text == "\n".join(
        f"Package: {name}\nVersion: 1\nFilename: ./packages/{name}.deb\nSize: 3\nSHA256: {sha256}\n" for name, sha256 in zip("ab", sums, strict=True)
    )


def test_a_directory_that_is_not_the_declared_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(package_directory.DirectoryError, match="SHA256SUMS is missing"):
        package_directory.entries(tmp_path, "")
    sha256 = directory(tmp_path, a=b"one")
    with pytest.raises(package_directory.DirectoryError, match=f"its SHA-256 is {sha256}, and 00 is declared"):
        package_directory.entries(tmp_path, "00")
    (tmp_path / "b.deb").touch()
    with pytest.raises(package_directory.DirectoryError, match=r"does not name what is there: b\.deb"):
        package_directory.entries(tmp_path, sha256)
    (tmp_path / "b.deb").unlink()
    (tmp_path / "a.deb").write_bytes(b"another")
    with pytest.raises(package_directory.DirectoryError, match=r"a\.deb: its SHA-256 is .*bring it again"):
        package_directory.index(package_directory.entries(tmp_path, sha256), str)
    (tmp_path / "a.deb").unlink()
    with pytest.raises(package_directory.DirectoryError, match=r"names what is not there: a\.deb"):
        package_directory.entries(tmp_path, sha256)
