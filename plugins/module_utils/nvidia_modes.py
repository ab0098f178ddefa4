# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring GPUs to their declared modes: error correction of their memory, and how MIG divides them.

Runs on managed hosts, from Ansible's module and as a program at every start of a host, since no GPU remembers its MIG instances: the standard
library only.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

QUERY = ("nvidia-smi", "--query-gpu=index,ecc.mode.current,ecc.mode.pending,mig.mode.current,mig.mode.pending", "--format=csv,noheader")
LIST = ("nvidia-smi", "-L")
MODES = {"Enabled": True, "Disabled": False}

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a program; returns its exit code (127 where there is none) and what it printed."""


class ModesError(Exception):
    """A GPU cannot be brought to what is declared; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Gpu:
    """The modes of a GPU: None where it does not have one.

    Attributes:
        index: Number by which nvidia-smi knows it.
        ecc: Whether errors in its memory are corrected.
        ecc_next: Whether they will be after the next reset.
        mig: Whether it can be divided.
        mig_next: Whether it can be after the next reset.
        profiles: Its MIG instances, such as ``3g.40gb``, sorted.
    """

    index: int
    ecc: bool | None
    ecc_next: bool | None
    mig: bool | None
    mig_next: bool | None
    profiles: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Its modes in one line, for differences."""
        words = {None: "none", True: "on", False: "off"}
        return f"GPU {self.index}: ECC {words[self.ecc_next]}, MIG {', '.join(self.profiles) or words[self.mig_next]}"


@dataclass(frozen=True)
class Wanted:
    """What is declared.

    Attributes:
        ecc: Whether errors are corrected; None leaves every GPU as it is.
        mig: Profiles by a GPU's number, or by ``all`` for those without an entry of their own. No profile means that MIG is off;
            a GPU without an entry stays as it is.
    """

    ecc: bool | None = None
    mig: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def profiles(self, index: int) -> tuple[str, ...] | None:
        """Return the profiles that a GPU shall have, or None where nothing is declared."""
        found = self.mig.get(str(index), self.mig.get("all"))
        return None if found is None else tuple(sorted(found))

    def described(self, gpu: Gpu) -> Gpu:
        """Return the GPU as it shall be."""
        profiles = self.profiles(gpu.index)
        ecc = gpu.ecc if self.ecc is None or gpu.ecc is None else self.ecc
        mig = gpu.mig if profiles is None or gpu.mig is None else bool(profiles)
        return Gpu(gpu.index, ecc, ecc, mig, mig, gpu.profiles if profiles is None else profiles)


@dataclass(frozen=True)
class Outcome:
    """What has been done.

    Attributes:
        before: The GPUs as they were.
        after: The GPUs as they are, or as they would be.
        commands: What was run, or would be.
        pending: Numbers of the GPUs that come to what is declared only by a reset, or by a restart of the host.
    """

    before: tuple[Gpu, ...]
    after: tuple[Gpu, ...]
    commands: tuple[tuple[str, ...], ...]
    pending: tuple[int, ...]


def run(command: Sequence[str]) -> tuple[int, str]:
    """Run a program in the C locale; its standard output and error come as one text."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout


def look(run: Run) -> list[Gpu]:
    """Ask nvidia-smi for the modes of all GPUs; ModesError where it does not answer."""
    texts = []
    for command in (QUERY, LIST):
        code, said = run(command)
        if code:
            raise ModesError(f"{' '.join(command)} has ended with {code}: {said.strip()}. Modes can be set only where the driver works.")
        texts.append(said)
    instances = parse_instances(texts[1])
    found = []
    for line in filter(None, map(str.strip, texts[0].splitlines())):
        index, *modes = line.split(", ")
        if not index.isdigit() or len(modes) != 4:
            raise ModesError(f"{' '.join(QUERY)} has printed a line of an unknown form: {line!r}")
        ecc, ecc_next, mig, mig_next = (MODES.get(mode) for mode in modes)
        found.append(Gpu(int(index), ecc, ecc_next, mig, mig_next, instances.get(int(index), ())))
    return found


def parse_instances(said: str) -> dict[int, tuple[str, ...]]:
    """Read what ``nvidia-smi -L`` prints: the profiles of each GPU's MIG instances, by its number."""
    found: dict[int, list[str]] = {}
    index = -1
    for line in said.splitlines():
        if gpu := re.match(r"GPU (\d+): ", line):
            index = int(gpu[1])
            found[index] = []
        elif instance := re.match(r"\s+MIG (\S+)\s+Device\s+\d+:", line):
            found[index].append(instance[1])
    return {index: tuple(sorted(profiles)) for index, profiles in found.items()}


def refuse(gpus: Sequence[Gpu], wanted: Wanted) -> None:
    """Raise ModesError where a GPU does not have what is declared."""
    numbers = {str(gpu.index) for gpu in gpus}
    if unknown := sorted(set(wanted.mig) - numbers - {"all"}):
        raise ModesError(f"MIG is declared for GPU {', '.join(unknown)}, and the host has {', '.join(sorted(numbers)) or 'none'}.")
    for gpu in gpus:
        if wanted.ecc and gpu.ecc is None:
            raise ModesError(f"GPU {gpu.index} cannot correct errors in its memory: leave ECC undeclared for this host.")
        if wanted.profiles(gpu.index) and gpu.mig is None:
            raise ModesError(f"GPU {gpu.index} cannot be divided by MIG: declare none for it.")


def modes(gpu: Gpu, wanted: Wanted) -> list[tuple[str, ...]]:
    """Return the commands that change a GPU's modes; some take effect by a reset alone."""
    at = ("nvidia-smi", "-i", str(gpu.index))
    profiles = wanted.profiles(gpu.index)
    commands: list[tuple[str, ...]] = []
    if wanted.ecc is not None and gpu.ecc_next is not None and gpu.ecc_next != wanted.ecc:
        commands.append((*at, "-e", str(int(wanted.ecc))))
    if profiles is not None and gpu.mig_next is not None and gpu.mig_next != bool(profiles):
        if not profiles and gpu.profiles:
            commands += clear(gpu)
        commands.append((*at, "-mig", str(int(bool(profiles)))))
    return commands


def clear(gpu: Gpu) -> list[tuple[str, ...]]:
    """Return the commands that take a GPU's MIG instances away: first what computes in them, then themselves."""
    return [("nvidia-smi", "mig", "-i", str(gpu.index), option) for option in ("-dci", "-dgi")]


def layout(gpu: Gpu, wanted: Wanted) -> list[tuple[str, ...]]:
    """Return the commands that divide a GPU on which MIG is on."""
    profiles = wanted.profiles(gpu.index)
    if not profiles or not gpu.mig or gpu.profiles == profiles:
        return []
    return [*(clear(gpu) if gpu.profiles else []), ("nvidia-smi", "mig", "-i", str(gpu.index), "-cgi", ",".join(profiles), "-C")]


def apply(run: Run, wanted: Wanted, pretend: bool = False) -> Outcome:
    """Bring all GPUs to their declared modes.

    Args:
        run: Runs programs.
        wanted: What is declared.
        pretend: Whether to change nothing.

    Returns:
        What has been done, or would be.

    Raises:
        ModesError: a GPU does not have what is declared, or nvidia-smi refuses a change, as it does while somebody computes on it.
    """
    before = tuple(look(run))
    refuse(before, wanted)
    done: list[tuple[str, ...]] = []

    def change(commands: Sequence[tuple[str, ...]]) -> None:
        for command in commands:
            done.append(command)
            if pretend:
                continue
            code, said = run(command)
            if code:
                raise ModesError(
                    f"{' '.join(command)} has ended with {code}: {said.strip()}. A GPU on which somebody computes keeps its modes: drain the host, "
                    "then run this again."
                )

    for gpu in before:
        change(modes(gpu, wanted))
    now = before if pretend or not done else tuple(look(run))
    divided = [layout(gpu, wanted) for gpu in now]
    for commands in divided:
        change(commands)
    after = tuple(wanted.described(gpu) for gpu in now) if pretend else tuple(look(run)) if done else now
    target = [wanted.described(gpu) for gpu in after]
    pending = [gpu.index for gpu, shall in zip(now if pretend else after, target, strict=True) if (gpu.ecc, gpu.mig) != (shall.ecc, shall.mig)]
    return Outcome(before, after, tuple(done), tuple(pending))


def main(arguments: Sequence[str]) -> int:
    """Bring the GPUs to what the file declares that the one argument names; return 1 and say why where that fails."""
    declared = json.loads(Path(arguments[0]).read_text())
    try:
        outcome = apply(run, Wanted(declared["ecc"], declared["mig"]))
    except ModesError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for gpu in outcome.after:
        sys.stdout.write(f"{gpu}\n")
    if outcome.pending:
        waiting = ", ".join(map(str, outcome.pending))
        sys.stderr.write(f"GPU {waiting}: takes its mode up with the next reset, or the next restart of the host\n")
    return int(bool(outcome.pending))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
