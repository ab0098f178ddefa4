"""Print the state of NVIDIA's GPUs, as nvidia-smi and the kernel's log have it.

``nvidia_gpus.py [--expected N]``

Which GPUs there are, the PCI bus says: one that nvidia-smi does not reach does not answer, and the others are still asked.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

MEMORY = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/sovereign/textfiles")) / "nvidia_gpus.json"
DEVICES = Path("/sys/bus/pci/devices")
NVIDIA = "0x10de"
DISPLAYS = ("0x0300", "0x0302")
"""Classes of PCI devices that GPUs have: with a display, and without."""
SMI = ("nvidia-smi", "-q", "-x")
PATIENCE = 6.0
"""Seconds for all of nvidia-smi's answers."""
JOURNAL_PATIENCE = 2.0
"""Seconds for the kernel's log."""
CURSOR = "-- cursor: "
# Some drivers print this part so that it is no XML.
CLOCKS = re.compile(r"<supported_clocks>.*?</supported_clocks>", re.DOTALL)
XID = re.compile(r"NVRM: Xid \(PCI:([0-9A-Fa-f:.]+)\): (\d+),")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# Under either of its names: `throttle` before branch 535. The idle GPU and settings of clocks are no throttling.
REASONS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown", "sw_power_cap")

Run = Callable[[Sequence[str], float], str | None]
"""Runs a program for so many seconds at most; returns what it printed, or nothing if it failed."""


def run(command: Sequence[str], seconds: float) -> str | None:
    """Run a program. One that hangs in the kernel, as nvidia-smi does on some GPUs that are lost, is killed and not waited for."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace")
    except OSError:
        return None
    try:
        said, dummy = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return said if process.returncode == 0 else None


def hangs(processes: Path = Path("/proc")) -> bool:
    """Tell whether an nvidia-smi waits in the kernel: another would come to wait beside it."""
    for status in processes.glob("[0-9]*/stat"):
        try:
            name, state = status.read_text().partition("(")[2].rpartition(")")[::2]
        except OSError:
            continue  # It has ended.
        if name == "nvidia-smi" and state.split()[0] == "D":
            return True
    return False


def address(text: str) -> str:
    """Give a PCI address in the kernel's form: nvidia-smi writes eight digits of the domain, the kernel's log no function."""
    domain, dummy, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}" + ("" if "." in rest else ".0")


def on_bus(devices: Path = DEVICES) -> list[str]:
    """Give the PCI addresses of NVIDIA's GPUs."""
    found = []
    for device in sorted(devices.glob("*")):
        try:
            if (device / "vendor").read_text().strip() == NVIDIA and (device / "class").read_text().strip()[:6] in DISPLAYS:
                found.append(device.name)
        except OSError:
            continue
    return found


def parse(said: str | None) -> dict[str, ElementTree.Element]:
    """Read what ``nvidia-smi -q -x`` prints: GPUs by their PCI addresses. Nothing of what is no XML."""
    try:
        root = ElementTree.fromstring(CLOCKS.sub("", said or ""))  # noqa: S314 - nvidia-smi is root's
    except ElementTree.ParseError:
        return {}
    return {address(gpu.get("id", "")): gpu for gpu in root.findall("gpu")}


def ask(gpus: Sequence[str], run: Run = run, clock: Callable[[], float] = time.monotonic) -> dict[str, ElementTree.Element]:
    """Ask for all GPUs at once, and for each by itself if that fails, as it does when one of them is lost."""
    deadline = clock() + PATIENCE
    # Half of the time: one that hangs must leave some to the others.
    if answered := parse(run(SMI, PATIENCE / 2)):
        return answered
    for gpu in gpus:
        share = (deadline - clock()) / max(1, len(gpus) - len(answered))
        if share > 0.1:
            answered |= parse(run([*SMI, "-i", gpu], share))
    return answered


def number(gpu: ElementTree.Element, *paths: str) -> float | None:
    """Give the first of several elements that holds a number; nothing for N/A, and for what this driver does not know."""
    for path in paths:
        if found := NUMBER.match((gpu.findtext(path) or "").strip()):
            return float(found[0])
    return None


def total(gpu: ElementTree.Element, pattern: str) -> float | None:
    """Give the sum of the numbers in those elements of a counter whose names match; nothing if there are none."""
    counts = [child.text or "" for child in gpu.findall("ecc_errors/aggregate/*") if re.fullmatch(pattern, child.tag)]
    return float(sum(int(count) for count in counts if count.isdigit())) if any(count.isdigit() for count in counts) else None


def yes(gpu: ElementTree.Element, path: str) -> float | None:
    """Give 1 for Yes and Active, 0 for No and Not Active."""
    return {"yes": 1.0, "active": 1.0, "no": 0.0, "not active": 0.0}.get((gpu.findtext(path) or "").strip().lower())


def margin(gpu: ElementTree.Element) -> float | None:
    """Give the degrees that are left until the GPU slows down. Since Hopper it tells these itself, before it tells a limit."""
    left, slow = number(gpu, "temperature/gpu_temp_tlimit"), number(gpu, "temperature/gpu_temp_slow_tlimit_threshold")
    if left is not None:
        return left - (slow or 0.0)
    now, limit = number(gpu, "temperature/gpu_temp"), number(gpu, "temperature/gpu_temp_slow_threshold")
    return None if now is None or limit is None else limit - now


def times(value: float | None, factor: float) -> float | None:
    """Convert a value, if there is one."""
    return None if value is None else value * factor


def recovery(gpu: ElementTree.Element) -> float | None:
    """Tell whether the driver asks for a reset, or for a restart of the host."""
    if (action := gpu.findtext("gpu_recovery_action")) is not None:
        return float(action.strip() not in ("None", "N/A", ""))
    return yes(gpu, "gpu_reset_status/reset_required")


FIGURES: dict[str, tuple[str, str, Callable[[ElementTree.Element], float | None]]] = {
    "utilization_ratio": (
        "gauge",
        "Share of the last moment in which the GPU computed; nothing where MIG divides it.",
        lambda gpu: times(number(gpu, "utilization/gpu_util"), 0.01),
    ),
    "memory_used_bytes": ("gauge", "Memory in use.", lambda gpu: times(number(gpu, "fb_memory_usage/used"), 1048576)),
    "memory_total_bytes": ("gauge", "Memory.", lambda gpu: times(number(gpu, "fb_memory_usage/total"), 1048576)),
    "temperature_celsius": ("gauge", "Temperature.", lambda gpu: number(gpu, "temperature/gpu_temp")),
    "thermal_margin_celsius": ("gauge", "Degrees until the GPU slows down.", margin),
    "power_watts": (
        "gauge",
        "Power drawn.",
        lambda gpu: number(gpu, "gpu_power_readings/instant_power_draw", "gpu_power_readings/power_draw", "power_readings/power_draw"),
    ),
    "power_limit_watts": (
        "gauge",
        "Power that it may draw.",
        lambda gpu: number(gpu, "gpu_power_readings/current_power_limit", "power_readings/power_limit"),
    ),
    "ecc_uncorrected_total": (
        "counter",
        "Errors of memory that could not be corrected, in the GPU's life.",
        lambda gpu: total(gpu, r"(?:sram|dram)_uncorrectable(?:_parity|_secded)?"),
    ),
    "ecc_corrected_total": (
        "counter",
        "Errors of memory that were corrected, in the GPU's life.",
        lambda gpu: total(gpu, r"(?:sram|dram)_correctable"),
    ),
    "row_remap_pending": (
        "gauge",
        "Whether a row of memory is replaced at the next reset.",
        lambda gpu: yes(gpu, "remapped_rows/remapped_row_pending"),
    ),
    "row_remap_failed": (
        "gauge",
        "Whether a row of memory could not be replaced.",
        lambda gpu: yes(gpu, "remapped_rows/remapped_row_failure"),
    ),
    "reset_required": ("gauge", "Whether the driver asks for a reset of the GPU, or for a restart of the host.", recovery),
}
"""What is printed of each GPU: type, meaning, and how it is found, by name."""


def throttled(gpu: ElementTree.Element, reason: str) -> float | None:
    """Tell whether the GPU is slowed down for a reason."""
    for word in ("event", "throttle"):
        if (found := yes(gpu, f"clocks_{word}_reasons/clocks_{word}_reason_{reason}")) is not None:
            return found
    return None


@dataclass
class Xids:
    """Errors that the driver has written into the kernel's log.

    Attributes:
        cursor: Place in the journal.
        last: When each was last seen, in seconds since 1970, by the GPU's PCI address and the error's number.
    """

    cursor: str = ""
    last: dict[tuple[str, str], int] = field(default_factory=dict)

    def read(self, said: str | None, now: float) -> None:
        """Take what journalctl printed: lines with a time in front, and the place at the end. Nothing: the place is lost."""
        lines = (said or "").splitlines()
        if said is None:
            self.cursor = ""
        elif lines and lines[-1].startswith(CURSOR):
            self.cursor = lines.pop().removeprefix(CURSOR)
        for line in lines:
            if found := XID.search(line):
                moment = NUMBER.match(line)
                self.last[address(found[1]), found[2]] = int(float(moment[0]) if moment else now)


def xids(memory: Path, run: Run = run) -> Xids:
    """Read what has come into the kernel's log since the last time; at the first time, since the boot."""
    known = Xids()
    try:
        kept = json.loads(memory.read_text(encoding="utf-8"))
        known = Xids(kept["cursor"], {(gpu, code): moment for gpu, code, moment in kept["last"]})
    except (OSError, ValueError, KeyError, TypeError):
        pass  # The first time, or damaged.
    place = [f"--after-cursor={known.cursor}"] if known.cursor else ["--boot"]
    known.read(
        run(["journalctl", "--quiet", "--no-pager", "--output=short-unix", "--show-cursor", "_TRANSPORT=kernel", *place], JOURNAL_PATIENCE),
        time.time(),
    )
    draft = memory.with_suffix(".draft")
    draft.write_text(json.dumps({"cursor": known.cursor, "last": [[*key, moment] for key, moment in known.last.items()]}), encoding="utf-8")
    draft.replace(memory)
    return known


def quoted(text: str) -> str:
    """Give a text as the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def report(gpus: Sequence[str], answered: dict[str, ElementTree.Element], known: Xids, expected: int | None) -> list[str]:
    """Give the metrics as lines of Prometheus' text format.

    Args:
        gpus: PCI addresses on the bus.
        answered: What nvidia-smi says of each.
        known: Errors in the kernel's log.
        expected: Number of GPUs that the host is said to have.
    """
    present = sorted({*gpus, *answered})
    lines = [
        "# HELP sovereign_gpus_expected GPUs that the host is said to have, or else has on its PCI bus.",
        "# TYPE sovereign_gpus_expected gauge",
        f"sovereign_gpus_expected {len(gpus) if expected is None else expected}",
        "# HELP sovereign_gpus_answering GPUs that answer nvidia-smi.",
        "# TYPE sovereign_gpus_answering gauge",
        f"sovereign_gpus_answering {len(answered)}",
        "# HELP sovereign_gpu_answers Whether a GPU answers nvidia-smi.",
        "# TYPE sovereign_gpu_answers gauge",
        *(f'sovereign_gpu_answers{{gpu="{gpu}"}} {int(gpu in answered)}' for gpu in present),
        "# HELP sovereign_gpu_info What a GPU is, and the number by which nvidia-smi knows it.",
        "# TYPE sovereign_gpu_info gauge",
    ]
    for number_of, (name, gpu) in enumerate(sorted(answered.items())):
        model, uuid = quoted(gpu.findtext("product_name") or ""), quoted(gpu.findtext("uuid") or "")
        lines.append(f'sovereign_gpu_info{{gpu="{name}",index="{number_of}",model="{model}",uuid="{uuid}"}} 1')
    for figure, (kind, meaning, find) in FIGURES.items():
        values = [(name, find(gpu)) for name, gpu in sorted(answered.items())]
        lines += [f"# HELP sovereign_gpu_{figure} {meaning}", f"# TYPE sovereign_gpu_{figure} {kind}"]
        lines += [f'sovereign_gpu_{figure}{{gpu="{name}"}} {value:.12g}' for name, value in values if value is not None]
    lines += ["# HELP sovereign_gpu_throttled Whether a GPU is slowed down, by reason.", "# TYPE sovereign_gpu_throttled gauge"]
    for name, gpu in sorted(answered.items()):
        for reason in REASONS:
            if (value := throttled(gpu, reason)) is not None:
                lines.append(f'sovereign_gpu_throttled{{gpu="{name}",reason="{reason}"}} {value:.0f}')
    lines += [
        "# HELP sovereign_gpu_xid_last_seconds When the driver last wrote an error of a GPU, in seconds since 1970.",
        "# TYPE sovereign_gpu_xid_last_seconds gauge",
    ]
    lines += [f'sovereign_gpu_xid_last_seconds{{gpu="{gpu}",xid="{code}"}} {moment}' for (gpu, code), moment in sorted(known.last.items())]
    return lines


def main() -> None:
    """Look, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--expected", type=int, help="number of GPUs that the host is said to have")
    given = parser.parse_args()
    gpus = on_bus()
    print("\n".join(report(gpus, {} if hangs() else ask(gpus), xids(MEMORY), given.expected)))


if __name__ == "__main__":
    main()
