"""What is known of a host's GPUs, from what nvidia-smi prints on hosts of several generations, and on hosts where it prints nothing useful."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info import facts, host, reading
from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info.facts import GpuInfo, group_by_nvlink, nvlinks_between
from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info.host import Answer, gather
from ansible_collections.sovereign.dify.plugins.modules import gpu_info as module

FIXTURES = Path(__file__).parent / "fixtures/gpu"
ANSWERS = {
    "-q -x": "q.xml",
    "topo -m": "topo-m.txt",
    "topo -p2p r": "topo-p2p-r.txt",
    "--query-gpu=index,uuid,compute_cap --format=csv,noheader": "query.csv",
    "nvlink --status": "nvlink.txt",
    "-L": "list.txt",
    "--version": "version.txt",
}
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.159\n"
LDCONFIG = "\tlibnvidia-ml.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n"


class Host:
    """A host whose nvidia-smi answers from a folder of ``fixtures/gpu``, or as told.

    Attributes:
        root: Its ``sys``, ``proc`` and libraries.
        programs: What it has installed.
        answers: What a command answers, by its arguments; they count before the folder.
    """

    def __init__(self, root: Path, folder: str = "", driver: str = "") -> None:  # noqa: D107
        self.root = root
        self.folder = folder
        self.programs = {"nvidia-smi"} if folder else set()
        self.answers: dict[str, Answer] = {}
        if driver:
            self.write("sys/module/nvidia/version", driver)

    def write(self, path: str, text: str) -> None:
        """Write a file below the root."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")

    def add_device(self, address: str, kind: str = "0x030200", driver: str = "nvidia", numa_node: int = -1, vendor: str = "0x10de") -> None:
        """Put a device on the PCI bus."""
        device = f"sys/bus/pci/devices/{address}"
        for name, text in {"vendor": vendor, "class": kind, "numa_node": str(numa_node)}.items():
            self.write(f"{device}/{name}", text)
        if driver:
            held = self.root / f"sys/bus/pci/drivers/{driver}"
            held.mkdir(parents=True, exist_ok=True)
            (self.root / device / "driver").symlink_to(held)

    def add_library(self, version: str) -> None:
        """Install NVML, under the name that its version gives it."""
        self.programs.add("ldconfig")
        self.answers["-p"] = Answer(0, LDCONFIG)
        self.write(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}", "")
        (self.root / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{version}")

    def run(self, command: Sequence[str]) -> Answer:
        """Answer a command."""
        arguments = " ".join(command[1:])
        if arguments in self.answers:
            return self.answers[arguments]
        recorded = FIXTURES / self.folder / ANSWERS.get(arguments, "-")
        return Answer(0, recorded.read_text()) if self.folder and recorded.is_file() else Answer(1, "")

    def gather(self) -> GpuInfo:
        """Ask this host for its GPUs."""
        return gather(self.run, lambda name: f"/usr/bin/{name}" if name in self.programs else None, self.root)


def test_a_recorded_h100_is_read_whole(tmp_path: Path) -> None:
    machine = Host(tmp_path, "h100-1x")
    machine.add_device("0000:00:05.0", kind="0xffff00", vendor="0x1af4")
    machine.add_device("0000:00:06.0")
    machine.write("proc/driver/nvidia/version", (FIXTURES / "h100-1x/proc-version.txt").read_text())
    info = machine.gather()
    assert info.reason == ""
    assert info.problems == ()
    assert info.driver == facts.Driver(kernel_module="580.159.04", library="580.159", consistent=True, cuda="13.0")
    assert asdict(info.gpus[0]) == {
        "index": 0,
        "uuid": "GPU-00000000-0000-4000-8000-000000000001",
        "name": "NVIDIA H100 80GB HBM3",
        "architecture": "Hopper",
        "compute_capability": "9.0",
        "pci_bus_id": "0000:00:06.0",
        "numa_node": 0,
        "cpu_affinity": "0-15",
        "memory_mib": 81559,
        "memory_used_mib": 0,
        "ecc": True,
        "ecc_pending": True,
        "ecc_uncorrectable": 0,
        "ecc_uncorrectable_total": 0,
        "mig": False,
        "mig_pending": False,
        "mig_instances": (),
        "persistence": True,
        "power_w": 69.55,
        "power_limit_w": 700.0,
        "nvlinks": 0,
        "nvlinks_down": 0,
        "nvlink_gbps": None,
        "pcie_generation": 5,
        "pcie_generation_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "fabric_state": None,
        "fabric_status": None,
        "virtualization": "Pass-Through",
    }
    assert info.topology == info.p2p == (("X",),)
    assert info.nvlink_groups == ((0,),)
    assert not info.fabric_manager.needed


def test_eight_a100_behind_nvswitches_are_one_group_and_a_dead_link_is_told(tmp_path: Path) -> None:
    machine = Host(tmp_path, "a100-8x", "535.183.06")
    for bus in ("07", "0f", "47", "4e", "87", "90", "b7", "bd"):
        machine.add_device(f"0000:{bus}:00.0", numa_node=3 if bus in ("07", "0f") else -1)
    for switch in range(0xC4, 0xCA):
        machine.add_device(f"0000:{switch:x}:00.0", kind="0x068000")
    machine.programs |= {"nv-fabricmanager", "systemctl"}
    machine.answers |= {
        "--version": Answer(0, "Fabric Manager version is : 535.183.06"),
        "is-active --quiet nvidia-fabricmanager.service": Answer(0, ""),
    }
    info = machine.gather()
    assert [gpu.index for gpu in info.gpus] == list(range(8))
    assert {gpu.compute_capability for gpu in info.gpus} == {"8.0"}
    # The kernel knows two of them; of the others nvidia-smi tells.
    assert [gpu.numa_node for gpu in info.gpus] == [3, 3, 1, 1, 7, 7, 5, 5]
    assert info.gpus[7].cpu_affinity == "80-95,208-223"
    assert {gpu.power_w for gpu in info.gpus} == {62.31}
    assert [(gpu.nvlinks, gpu.nvlinks_down) for gpu in info.gpus[5:]] == [(12, 0), (11, 1), (12, 0)]
    assert info.gpus[0].nvlink_gbps == 25.0
    assert info.link(0, 7) == "NV12"
    assert info.link(3, 3) == "X"
    assert info.nvlink_groups == (tuple(range(8)),)
    assert info.nvswitches == 6
    assert info.fabric_manager == facts.FabricManager(needed=True, installed=True, running=True, version="535.183.06")
    assert info.problems == ("GPU 6: 1 of 12 NVLinks are down (nvidia-smi nvlink --status -i 6).",)


def test_eight_h200_tell_of_their_fabric(tmp_path: Path) -> None:
    machine = Host(tmp_path, "h200-8x", "570.133.20")
    info = machine.gather()
    assert {(gpu.nvlinks, gpu.nvlink_gbps, gpu.fabric_state, gpu.fabric_status) for gpu in info.gpus} == {(18, 26.562, "Completed", "Success")}
    assert [gpu.numa_node for gpu in info.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {gpu.memory_mib for gpu in info.gpus} == {143771}
    assert info.problems == ()
    text = (FIXTURES / "h200-8x/q.xml").read_text().replace("<state>Completed", "<state>In Progress", 1).replace("<status>Success", "<status>N/A", 1)
    machine.answers["-q -x"] = Answer(0, text)
    assert machine.gather().problems == (
        "Not registered with the NVSwitch fabric (GPU 0: In Progress, status unknown), so that CUDA will not start: the journal of "
        "nvidia-fabricmanager.service where the NVSwitches are says why.",
    )


def test_gpus_that_only_pcie_connects_are_alone(tmp_path: Path) -> None:
    info = Host(tmp_path, "l40s-4x", "550.144.03").gather()
    assert info.nvlink_groups == ((0,), (1,), (2,), (3,))
    assert (info.link(0, 1), info.link(0, 2)) == ("NODE", "SYS")
    assert (info.p2p[0][1], info.p2p[0][2]) == ("OK", "CNS")
    assert {(gpu.architecture, gpu.compute_capability, gpu.mig, gpu.nvlink_gbps) for gpu in info.gpus} == {("Ada Lovelace", "8.9", None, None)}
    assert info.problems == ("GPU 3: its PCIe link has 8 of 16 lanes: look at slot, riser and the firmware's settings.",)


def test_mig_instances_have_profile_memory_and_uuid_and_their_gpu_joins_no_group(tmp_path: Path) -> None:
    info = Host(tmp_path, "a100-mig-2x", "535.183.06").gather()
    assert info.gpus[0].mig_instances == (
        facts.MigInstance(0, "3g.20gb", "MIG-00000000-0000-5000-8000-000000000001", 1, 0, 20096, 11),
        facts.MigInstance(1, "2g.10gb", "MIG-00000000-0000-5000-8000-000000000002", 5, 0, 9984, 7),
    )
    assert info.gpus[1].mig_instances == ()
    assert info.link(0, 1) == "NV12"
    assert info.nvlink_groups == ((0,), (1,))


def test_mig_instances_of_a_driver_that_does_not_list_them_have_memory_all_the_same(tmp_path: Path) -> None:
    machine = Host(tmp_path, "a100-mig-2x", "535.183.06")
    machine.answers["-L"] = Answer(1, "")
    assert [(mig.profile, mig.uuid, mig.memory_mib) for mig in machine.gather().gpus[0].mig_instances] == [("", "", 20096), ("", "", 9984)]


def test_an_old_driver_knows_no_compute_capability_and_counts_as_it_lists(tmp_path: Path) -> None:
    machine = Host(tmp_path, "l40s-4x", "450.80.02")
    machine.answers["--query-gpu=index,uuid,compute_cap --format=csv,noheader"] = Answer(2, 'Field "compute_cap" is not a valid field to query.\n')
    assert [(gpu.index, gpu.compute_capability) for gpu in machine.gather().gpus] == [(0, None), (1, None), (2, None), (3, None)]


def test_errors_are_summed_in_the_words_of_each_generation_of_drivers() -> None:
    def errors(counts: str) -> int | None:
        xml = f"<nvidia_smi_log><gpu id='00000000:3B:00.0'><ecc_errors><volatile>{counts}</volatile></ecc_errors></gpu></nvidia_smi_log>"
        return reading.gpu(reading.summary(xml).gpus[0], 0, reading.Besides()).ecc_uncorrectable

    assert errors("<single_bit><total>7</total></single_bit><double_bit><total>2</total></double_bit>") == 2
    assert errors("<sram_uncorrectable>1</sram_uncorrectable><dram_correctable>9</dram_correctable><dram_uncorrectable>2</dram_uncorrectable>") == 3
    assert errors("<sram_uncorrectable_parity>1</sram_uncorrectable_parity><sram_uncorrectable_secded>4</sram_uncorrectable_secded>") == 5
    assert errors("<sram_uncorrectable>N/A</sram_uncorrectable>") is None


def test_a_gpu_that_nvidia_smi_has_lost_leaves_the_others_their_numbers(tmp_path: Path) -> None:
    machine = Host(tmp_path, "l40s-4x", "550.144.03")
    for bus in ("41", "61", "c1", "e1"):
        machine.add_device(f"0000:{bus}:00.0")
    head, *gpus = (FIXTURES / "l40s-4x/q.xml").read_text().split("\t<gpu id=")
    machine.answers["-q -x"] = Answer(0, "\t<gpu id=".join([head, gpus[0], gpus[2], gpus[3]]))
    info = machine.gather()
    assert [gpu.index for gpu in info.gpus] == [0, 2, 3]
    assert (info.link(0, 2), info.link(2, 3)) == ("SYS", "NODE")
    assert info.problems[0].startswith("On the PCI bus, but unknown to nvidia-smi: 0000:61:00.0. ")


@pytest.mark.parametrize(
    ("links", "p2p", "groups"),
    [
        # Two islands; links between them that P2P may not use; a hybrid cube mesh, where not every GPU reaches every other.
        ("NV4 SYS SYS / SYS SYS / NV4", "", ((0, 1), (2, 3))),
        ("NV4 NV4 NV4 / NV4 NV4 / NV4", "OK NS NS / NS NS / OK", ((0, 1), (2, 3))),
        ("NV1 NV1 SYS / NV2 NV2 / NV1", "", ((0, 1, 2), (3,))),
        ("SYS SYS SYS / SYS SYS / SYS", "", ((0,), (1,), (2,), (3,))),
    ],
)
def test_groups_hold_gpus_that_all_reach_each_other(tmp_path: Path, links: str, p2p: str, groups: tuple[tuple[int, ...], ...]) -> None:
    def matrix(upper: str) -> list[list[str]]:
        rows = [row.split() for row in upper.split("/")]
        return [["X" if i == j else rows[min(i, j)][abs(i - j) - 1] for j in range(4)] for i in range(4)]

    gpus = Host(tmp_path, "l40s-4x", "550.144.03").gather().gpus
    assert group_by_nvlink(gpus, matrix(links), matrix(p2p) if p2p else ()) == groups
    assert group_by_nvlink(gpus, (), ()) == ((0,), (1,), (2,), (3,))


def test_words_for_links_are_counted() -> None:
    assert [nvlinks_between(word) for word in ("NV18", "NV1", "SYS", "X", "")] == [18, 1, 0, 0, 0]


def test_a_host_without_gpu_says_so(tmp_path: Path) -> None:
    machine = Host(tmp_path)
    machine.add_device("0000:00:02.0", vendor="0x1234")
    assert machine.gather() == GpuInfo(reason="This host has no NVIDIA device on its PCI bus.")


@pytest.mark.parametrize(
    ("driver", "says"),
    [
        ("nouveau", "The driver nouveau holds 0000:3b:00.0: blacklist it"),
        ("vfio-pci", "All GPUs (0000:3b:00.0) are given to virtual machines"),
        ("", "0000:3b:00.0 has no driver: NVIDIA's is not installed or not loaded."),
    ],
)
def test_a_gpu_without_nvidias_driver_says_who_holds_it(tmp_path: Path, driver: str, says: str) -> None:
    machine = Host(tmp_path)
    machine.add_device("0000:3b:00.0", driver=driver)
    info = machine.gather()
    assert info.gpus == ()
    assert info.reason.startswith(says)


def test_a_driver_upgraded_while_it_runs_is_told_from_one_that_fails(tmp_path: Path) -> None:
    machine = Host(tmp_path, "-", "570.133.20")
    machine.add_device("0000:3b:00.0")
    machine.add_library("580.159.04")
    machine.answers["-q -x"] = Answer(18, MISMATCH)
    info = machine.gather()
    assert (info.driver.kernel_module, info.driver.library, info.driver.consistent) == ("570.133.20", "580.159.04", False)
    assert info.reason.startswith(
        "The kernel has loaded NVIDIA's driver 570.133.20, but its library is of 580.159.04: the packages were upgraded under"
    )


def test_a_mismatch_is_seen_by_what_nvidia_smi_says_where_the_librarys_name_does_not_tell(tmp_path: Path) -> None:
    machine = Host(tmp_path, "-", "570.133.20")
    machine.answers["-q -x"] = Answer(18, MISMATCH)
    info = machine.gather()
    assert (info.driver.library, info.driver.consistent) == ("580.159", False)
    assert "Reboot the host" in info.reason


def test_a_driver_without_nvidia_smi_and_one_that_brings_up_no_gpu_and_one_that_hangs(tmp_path: Path) -> None:
    machine = Host(tmp_path, driver="570.133.20")
    machine.add_device("0000:3b:00.0")
    assert machine.gather().reason.startswith("NVIDIA's driver is loaded, but nvidia-smi is not installed")
    machine.programs.add("nvidia-smi")
    machine.answers["-q -x"] = Answer(6, "No devices were found\n")
    assert "has brought up no GPU (on the PCI bus: 0000:3b:00.0)" in machine.gather().reason
    machine.answers["-q -x"] = Answer(124, "no answer within 60 s")
    assert machine.gather().reason.startswith("nvidia-smi fails: no answer within 60 s. The kernel's log may say more")
    machine.answers["-q -x"] = Answer(0, "<nvidia_smi_log>")
    assert machine.gather().reason.startswith("nvidia-smi fails: nvidia-smi -q -x has not printed XML: ")


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "TIMEOUT_S", 0.2)
    assert host.run_command([sys.executable, "-c", "import time; time.sleep(30)"]) == Answer(124, "no answer within 0.2 s")
    assert host.run_command(["/nonexistent"]).code == 127


@pytest.mark.parametrize(
    ("installed", "running", "version", "says"),
    [
        (False, False, "", "not installed: install nvidia-fabricmanager of version 570.133.20"),
        (True, False, "570.133.20", "nvidia-fabricmanager.service is not active"),
        (True, True, "570.124.06", "The fabric manager is of version 570.124.06, the driver of 570.133.20"),
    ],
)
def test_nvswitches_need_a_fabric_manager_of_the_drivers_version(tmp_path: Path, installed: bool, running: bool, version: str, says: str) -> None:
    machine = Host(tmp_path, "h200-8x", "570.133.20")
    machine.add_library("570.133.20")
    machine.add_device("0000:05:00.0", kind="0x068000")
    if installed:
        machine.programs |= {"nv-fabricmanager", "systemctl"}
        machine.answers |= {
            "--version": Answer(0, f"Fabric Manager version is : {version}"),
            "is-active --quiet nvidia-fabricmanager.service": Answer(0 if running else 3, ""),
        }
    problems = machine.gather().problems
    assert len(problems) == 1
    assert says in problems[0]


def test_nvswitches_since_blackwell_are_known_by_the_cards_that_manage_them(tmp_path: Path) -> None:
    machine = Host(tmp_path)
    for card, data in {"mlx5_0": "SMDL=SW_MNG", "mlx5_1": "SMDL=SW_MNG", "mlx5_2": "MCX75310AAS"}.items():
        machine.write(f"sys/class/infiniband/{card}/device/vpd", data)
    assert machine.gather().nvswitches == 2
    assert machine.gather().fabric_manager.needed


def test_a_recorded_h200_is_read(tmp_path: Path) -> None:
    machine = Host(tmp_path, "h200-1x", "580.159.04")
    machine.add_device("0000:00:06.0")
    info = machine.gather()
    (gpu,) = info.gpus
    assert (gpu.name, gpu.architecture, gpu.compute_capability, gpu.memory_mib) == ("NVIDIA H200", "Hopper", "9.0", 143771)
    assert (gpu.ecc, gpu.mig, gpu.numa_node, gpu.virtualization) == (True, False, 0, "Pass-Through")
    assert (info.reason, info.problems, info.nvlink_groups) == ("", (), ((0,),))


def test_changes_that_wait_for_a_reset_and_broken_memory_are_told(tmp_path: Path) -> None:
    machine = Host(tmp_path, "h100-1x", "580.159.04")
    text = (FIXTURES / "h100-1x/q.xml").read_text()
    text = text.replace("<pending_mig>Disabled", "<pending_mig>Enabled").replace("<pending_ecc>Enabled", "<pending_ecc>Disabled")
    machine.answers["-q -x"] = Answer(0, text.replace("<dram_uncorrectable>0<", "<dram_uncorrectable>3<", 1))
    assert [problem.split(":")[1].split("(")[0].strip() for problem in machine.gather().problems] == [
        "MIG is off until it is reset",
        "ECC is on until it is reset",
        "3 uncorrectable memory errors since the driver was loaded",
    ]


def test_what_the_module_returns_is_documented() -> None:
    def documented(contains: Mapping[str, Any]) -> dict[str, Any]:
        return {key: documented(value["contains"]) if "contains" in value else None for key, value in contains.items()}

    def returned(kind: type) -> dict[str, Any]:
        hints = get_type_hints(kind)
        keys = {}
        for key in (field.name for field in fields(kind)):
            inner = next((part for part in (hints[key], *get_args(hints[key])) if is_dataclass(part)), None)
            keys[key] = returned(inner) if isinstance(inner, type) else None
        return keys

    assert documented(yaml.safe_load(module.RETURN)) == returned(GpuInfo)
