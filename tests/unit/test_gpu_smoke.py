"""What the trial of GPUs expects of their links and how it judges; and that it survives children that hang, fail or cannot start.

Real copies and sums are tried where torch is: by the scenario of the role, and on a host with GPUs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info.host import Answer, gather

from tests.role_program import PROJECT, load

gpu_smoke = load("vllm", "gpu_smoke")

PROGRAM = PROJECT / "roles/vllm/files/gpu_smoke.py"
FIXTURES = Path(__file__).parent / "fixtures/gpu"
FILES = {"-q": "q.xml", "topo -m": "topo-m.txt", "topo -p2p": "topo-p2p-r.txt", "--query-gpu": "query.csv", "nvlink": "nvlink.txt"}


def found(folder: str) -> dict[str, Any]:
    """What the module ``gpu_info`` returns on a host of ``fixtures/gpu``."""

    def run(command: Any) -> Answer:
        name = next((name for begin, name in FILES.items() if " ".join(command[1:]).startswith(begin)), "-")
        path = FIXTURES / folder / name
        return Answer(0, path.read_text()) if path.is_file() else Answer(1, "")

    result: dict[str, Any] = json.loads(json.dumps(asdict(gather(run, lambda name: name if name == "nvidia-smi" else None, Path("/nonexistent")))))
    return result


def topology(folder: str, **changes: Any) -> Any:
    """The same as the program reads it."""
    result = {**found(folder), **changes}
    return gpu_smoke.Topology(result["gpus"], result["topology"], result["nvswitches"], result["fabric_manager"])


def expected(folder: str, one: str, other: str, p2p: bool = True, **changes: Any) -> Any:
    return gpu_smoke.expected_of_pair(topology(folder, **changes), one, other, p2p)


def with_gpus(folder: str, **changes: Any) -> list[dict[str, Any]]:
    return [{**gpu, **changes} for gpu in found(folder)["gpus"]]


def with_mig() -> list[dict[str, Any]]:
    gpus = with_gpus("a100-mig-2x")
    gpus[0]["mig_instances"] = [{"index": index, "uuid": f"MIG-{index}"} for index in (0, 1)]
    return gpus


@pytest.mark.parametrize(
    ("folder", "p2p", "gbps", "why"),
    [
        # 12 links of 25 GB/s, 18 of 26.562 GB/s, four fifths of which are left to data.
        ("a100-8x", True, 240.0, "NV12"),
        ("h200-8x", True, 382.5, "NV18"),
        ("l40s-4x", True, 17.5, "PCIe 4 x16 over NODE"),
        ("l40s-4x", False, 12.5, "PCIe 4 x16 over NODE without P2P"),
    ],
)
def test_a_pair_is_expected_to_be_as_fast_as_its_link(folder: str, p2p: bool, gbps: float, why: str) -> None:
    assert expected(folder, "0", "1", p2p) == gpu_smoke.Expected(pytest.approx(gbps, rel=0.001), why)


def test_the_way_between_processors_is_expected_to_be_slower_and_half_the_lanes_half_as_fast() -> None:
    assert expected("l40s-4x", "0", "2").gbps == 12.5
    halved = found("l40s-4x")["gpus"]
    halved[2]["pcie_width_max"] = 8
    assert expected("l40s-4x", "0", "2", gpus=halved) == gpu_smoke.Expected(6.25, "PCIe 4 x8 over SYS")


def test_where_nvidia_smi_does_not_tell_the_links_speed_the_generation_does() -> None:
    assert expected("h200-8x", "0", "1", gpus=with_gpus("h200-8x", nvlink_gbps=None)).gbps == pytest.approx(360)
    unknown = with_gpus("h200-8x", nvlink_gbps=None, compute_capability=None)
    assert expected("h200-8x", "0", "1", gpus=unknown) == gpu_smoke.Expected(None, "NV18 of unknown speed")


def test_nothing_is_expected_where_nothing_is_known() -> None:
    assert gpu_smoke.expected_of_pair(gpu_smoke.Topology(), "0", "1", True).gbps is None
    assert expected("l40s-4x", "0", "1", gpus=with_gpus("l40s-4x", pcie_generation_max=None)).why == "the PCIe link is unknown"
    virtual = gpu_smoke.expected_of_pcie({"virtualization": "Pass-Through", "pcie_generation_max": 5, "pcie_width_max": 16})
    assert virtual == gpu_smoke.Expected(None, "a hypervisor shows a PCIe bus of its own making")


@pytest.mark.parametrize(
    ("folder", "gpus", "nvswitches", "gbps", "why"),
    [
        ("h200-8x", "0 1 2 3", 0, 382.5, "NV18"),  # the fabric's state tells of NVSwitches
        ("a100-8x", "0 1 2 3 4 5 6 7", 6, 240.0, "NV12"),
        ("a100-8x", "0 1", 0, 120.0, "NV12 without NVSwitch"),
        ("l40s-4x", "0 1", 0, 17.5, "PCIe 4 x16 over NODE"),
        ("l40s-4x", "0 1 2 3", 0, 7.5, "PCIe 4 x16 over SYS for 4 GPUs"),
        ("l40s-4x", "0", 0, None, "there is one GPU"),
    ],
)
def test_an_all_reduce_is_expected_to_be_as_fast_as_the_slowest_link(folder: str, gpus: str, nvswitches: int, gbps: float | None, why: str) -> None:
    way = gpu_smoke.expected_of_all_reduce(topology(folder, nvswitches=nvswitches), gpus.split(), lambda one, other: True)
    assert way == gpu_smoke.Expected(gbps if gbps is None else pytest.approx(gbps, rel=0.001), why)


def test_a_bus_carries_of_an_all_reduce_what_nccl_tests_says() -> None:
    assert [gpu_smoke.bus_factor(count) for count in (1, 2, 4, 8)] == [0, 1, 1.5, 1.75]


def observed(gbps: float = 370.0, bus: float = 400.0, **pair: Any) -> Any:
    """Two GPUs, all well but for what is told."""
    device = {"name": "NVIDIA H200", "free_mib": 140000, "memory_gbps": 4000.0, "host_to_gpu_gbps": 52.0, "gpu_to_host_gbps": 51.0, "correct": True}
    pairs = [{"from": one, "to": other, "p2p": True, "gbps": gbps, "correct": True} for one, other in (("0", "1"), ("1", "0"))]
    pairs[1] |= pair
    reductions = [{"bytes": 64 << 20, "algorithm_gbps": bus / 2, "bus_gbps": bus / 2, "wrong_ranks": []}]
    reductions.append({"bytes": 1 << 30, "algorithm_gbps": bus, "bus_gbps": bus, "wrong_ranks": []})
    return gpu_smoke.Observed([{**device, "gpu": "0"}, {**device, "gpu": "1"}], pairs, reductions, {"torch": "2.11.0"})


def verdict(watched: Any, floor: float = 0.7, folder: str = "h200-8x") -> tuple[list[str], list[str]]:
    _, wrong, slow = gpu_smoke.judge(["0", "1"], topology(folder), watched, floor)
    return wrong, slow


def test_good_gpus_have_no_fault_and_the_best_size_counts() -> None:
    figures, wrong, slow = gpu_smoke.judge(["0", "1"], topology("h200-8x"), observed(), 0.7)
    assert (wrong, slow) == ([], [])
    assert figures["pairs"][0]["share"] == pytest.approx(0.967)
    assert figures["all_reduce"]["gbps"] == 400.0
    assert figures["all_reduce"]["because_of"] == "NV18"
    summary = gpu_smoke.summarise(["0", "1"], "good", [], figures)
    assert summary == (
        "GPUs 0,1: good: copies between them at 370.0 to 370.0 GB/s, memory of GPU 0 at 4000 GB/s, all-reduce at 400.0 GB/s, "
        "all sums and copies right"
    )


def test_slow_gpus_are_told_with_what_was_expected_and_why() -> None:
    assert verdict(observed(gbps=38.0, bus=30.0)) == (
        [],
        [
            "GPU 0 → 1: 38.0 GB/s, 10% of the 382 GB/s that NV18 lets one expect (at least 70% are wanted)",
            "GPU 1 → 0: 38.0 GB/s, 10% of the 382 GB/s that NV18 lets one expect (at least 70% are wanted)",
            "all-reduce over 2 GPUs: 30.0 GB/s, 8% of the 382 GB/s that NV18 lets one expect (at least 70% are wanted)",
        ],
    )
    assert verdict(observed(gbps=38.0, bus=30.0), floor=0.05) == ([], [])


def test_a_slow_way_to_the_host_is_told() -> None:
    watched = observed()
    watched.devices[1]["gpu_to_host_gbps"] = 3.1
    assert verdict(watched)[1] == ["GPU 1 → host: 3.1 GB/s, 6% of the 50 GB/s that PCIe 5 x16 lets one expect (at least 70% are wanted)"]


def test_changed_data_wrong_sums_and_refused_p2p_are_wrong_whatever_the_speed() -> None:
    watched = observed(correct=False, p2p=False)
    watched.devices[0]["correct"] = False
    watched.reductions[0]["wrong_ranks"] = [1]
    assert verdict(watched, floor=0) == (
        [
            "GPU 0: data came back changed from its memory or the way to it.",
            "GPU 1 → 0: data arrived changed.",
            "GPU 1 → 0: NV18 connects them, but CUDA refuses P2P.",
            "An all-reduce of 64 MiB gives wrong sums on GPU 1.",
        ],
        [],
    )


def test_pcie_without_p2p_is_no_fault_by_itself() -> None:
    assert verdict(observed(gbps=11.0, bus=11.0, p2p=False), folder="l40s-4x") == (
        [],
        ["GPU 0 → 1: 11.0 GB/s, 63% of the 18 GB/s that PCIe 4 x16 over NODE lets one expect (at least 70% are wanted)"],
    )


def test_the_slowest_rank_counts_and_a_wrong_one_is_named() -> None:
    def rank(seconds: float, correct: bool) -> Any:
        worker = gpu_smoke.Worker("rank", None, None, None)
        worker.events = [{"doing": "all-reduce"}, {"all_reduce": {"bytes": 1 << 30, "seconds": seconds, "correct": correct}}]
        return worker

    (reduction,) = gpu_smoke._slowest([rank(0.01, True), rank(0.02, False)])
    assert reduction == {"bytes": 1 << 30, "algorithm_gbps": 53.69, "bus_gbps": 53.69, "wrong_ranks": [1]}


def test_usual_causes_begin_with_what_is_so_here(tmp_path: Path) -> None:
    stopped = topology("h200-8x", fabric_manager={"needed": True, "installed": True, "running": False, "version": "1"})
    causes = gpu_smoke.usual_causes(stopped, {"NCCL_P2P_DISABLE": "1"}, tmp_path)
    assert [cause.split()[0] for cause in causes] == ["The", "NCCL_P2P_DISABLE=1", "ACS", "The"]
    (tmp_path / "sys/class/iommu/dmar0").mkdir(parents=True)
    causes = gpu_smoke.usual_causes(topology("h200-8x"), {}, tmp_path)
    assert causes[0].startswith("The IOMMU is on, and so may be ACS")
    assert causes[1] == "If it goes well with NCCL_P2P_DISABLE=1, P2P is the cause."
    assert "fabric manager" in gpu_smoke.usual_causes(gpu_smoke.Topology(), {}, tmp_path)[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--gpus is missing: say which GPUs to try, for instance --gpus 0,1"),
        (["--gpus", "0,x"], "'x': a GPU is named by its index or its UUID"),
        (["--gpus", "0,0"], "'0,0' names a GPU twice"),
        (["--gpus", "0", "--floor", "1.2"], "1.2 is no share"),
        (["--gpus", "0", "--timeout", "0"], "0 is no time limit"),
        (["--gpus", "0", "--backend", "mpi"], "invalid choice: 'mpi'"),
    ],
)
def test_mistaken_arguments_are_refused_as_not_measured(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        gpu_smoke.main(arguments)
    assert refusal.value.code == gpu_smoke.UNMEASURED
    assert says in capsys.readouterr().err


def trial(*arguments: str, torch: str = "", path: Path | None = None) -> tuple[int, dict[str, Any], str]:
    """Run the program, with a library ``torch`` of that text; exit status, report and line for people."""
    environment = dict(os.environ)
    if path:
        (path / "torch").mkdir()
        (path / "torch/__init__.py").write_text(torch)
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment)
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report, done.stderr


def test_a_topology_that_is_none_or_knows_no_such_gpu_is_not_measured(tmp_path: Path) -> None:
    file = tmp_path / "gpu_info.json"
    code, report, _ = trial("--gpus", "0", "--topology", str(file))
    assert (code, report["verdict"]) == (2, "unmeasured")
    assert "cannot be read" in report["summary"]
    file.write_text(json.dumps({"gpus": [{"index": 0}]}))
    assert "is not what the module gpu_info returns: KeyError: 'uuid'" in trial("--gpus", "0", "--topology", str(file))[1]["summary"]
    file.write_text(json.dumps(found("l40s-4x")))
    code, _, line = trial("--gpus", "3,4", "--topology", str(file))
    assert (code, line) == (2, "GPU 4 is not on this host, whose GPUs are 0, 1, 2, 3.\n")


def test_a_mig_device_is_known_by_both_its_numbers() -> None:
    known = topology("a100-mig-2x", gpus=with_mig())
    assert [known.uuid(gpu) for gpu in ("1", "0:1", "0:2", "7")] == [found("a100-mig-2x")["gpus"][1]["uuid"], "MIG-1", None, None]
    gpu_smoke.expect_known(["0:1"], known)
    with pytest.raises(gpu_smoke.UnmeasuredError, match="GPU 0:2 is not on this host, whose GPUs are 0, 1"):
        gpu_smoke.expect_known(["0:2"], known)
    with pytest.raises(gpu_smoke.UnmeasuredError, match="whose GPUs are unknown without --topology"):
        gpu_smoke.expect_known(["0:1"], gpu_smoke.Topology())


def test_an_environment_without_torch_is_not_measured(tmp_path: Path) -> None:
    code, report, line = trial("--gpus", "0,1", torch="raise ModuleNotFoundError('no torch here')", path=tmp_path)
    assert (code, report["verdict"]) == (2, "unmeasured")
    assert "the process that copies ended with status 1 (loading torch): " in line
    assert "ModuleNotFoundError: no torch here" in line


def alive(marker: str) -> list[str]:
    """Processes that hold a marker in their environment."""
    held = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held += [process.name] if marker.encode() in (process / "environ").read_bytes() else []
        except OSError:
            continue
    return held


SLEEP = "import time; time.sleep(600)"


def test_a_hang_is_a_fault_that_names_where_and_what_usually_causes_it_and_leaves_nobody_behind(tmp_path: Path) -> None:
    begin = time.monotonic()
    code, report, line = trial("--gpus", "0,1", "--backend", "gloo", "--timeout", "6", torch=SLEEP, path=tmp_path)
    assert time.monotonic() - begin < 40
    assert (code, report["verdict"]) == (1, "hangs")
    # Time for two Pythons to begin, on a machine that does other things as well.
    assert "No end within 6 s, and so killed. Last heard of rank 0 (GPU 0), rank 1 (GPU 1): loading torch." in line
    assert any("ACS" in cause for cause in report["look_at"])
    assert "dmesg" in line
    assert alive(f"PYTHONPATH={tmp_path}") == []


def test_a_rank_that_dies_ends_the_others(tmp_path: Path) -> None:
    dies = "import os, sys, time\nif '\"rank\": 1' in ' '.join(sys.orig_argv): os.abort()\ntime.sleep(600)"
    code, report, _ = trial("--gpus", "0,1,2", "--backend", "gloo", "--timeout", "30", torch=dies, path=tmp_path)
    assert (code, report["verdict"]) == (2, "unmeasured")
    assert report["summary"].startswith("GPUs 0,1,2: unmeasured: rank 1 (GPU 1) was killed by signal 6 (loading torch)")
    assert alive(f"PYTHONPATH={tmp_path}") == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)])
def test_whoever_ends_it_ends_its_children(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(SLEEP)
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, str(PROGRAM), "--gpus", "0,1", "--backend", "gloo"], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while len(alive(f"PYTHONPATH={tmp_path}")) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(10) == code
    while alive(f"PYTHONPATH={tmp_path}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(f"PYTHONPATH={tmp_path}") == []
