# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts and their GPUs, in the words that a plan needs; read from what the module ``gpu_info`` returns, or from less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.errors import PlanError
from ansible_collections.sovereign.dify.plugins.module_utils.model_plan.figures import UNUSABLE_SHARE

LOWEST_CAPABILITY = (7, 5)
"""Below it there are no kernels: vLLM 0.32's wheels are of CUDA 13, which has dropped everything before Turing."""
UNLINKED = 1000
"""Number from which islands are of GPUs that nobody has said to have NVLink."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG instance, which is a GPU of its size.

    Attributes:
        host: Name of its host.
        label: What selects it: its index, or ``0:1`` for MIG instance 1 of GPU 0.
        name: Its product.
        memory_mib: Its memory as nvidia-smi tells it.
        capability: Its compute capability.
        numa: NUMA node that it hangs on; None if that is not known.
        island: Which GPUs of its host it reaches by NVLink: those of the same number.
        mig: Whether it is a MIG instance.
    """

    host: str
    label: str
    name: str
    memory_mib: int
    capability: tuple[int, int]
    numa: int | None
    island: int
    mig: bool = False

    @property
    def usable_mib(self) -> int:
        """Memory that CUDA offers."""
        return int(self.memory_mib * (1 - UNUSABLE_SHARE))

    def title(self) -> str:
        """Say what it is."""
        kind = f"MIG instance {self.label}" if self.mig else f"GPU {self.label}"
        return f"{kind} of {self.host} ({self.name or 'GPU'}, {self.memory_mib / 1024:.0f} GiB)"


@dataclass(frozen=True)
class Host:
    """A host.

    Attributes:
        name: Its name.
        gpus: Its GPUs that can be used.
        notes: What is to be said about GPUs that cannot.
    """

    name: str
    gpus: tuple[Gpu, ...]
    notes: tuple[str, ...] = ()


def read_host(result: Mapping[str, Any], use: Sequence[int | str] = ()) -> Host:
    """Read the GPUs of a host.

    Args:
        result: ``name`` of the host, ``gpus`` and ``nvlink_groups`` as the module ``gpu_info`` returns them. Of a GPU, ``memory_mib`` and
            ``compute_capability`` are needed; without ``nvlink_groups`` nobody is taken to have NVLink.
        use: Indices of the GPUs to use; MIG instances as ``0:1``. Empty for all.

    Raises:
        PlanError: something is missing, or no such GPU is there.
    """
    name = str(result.get("name") or "this host")
    listed: Sequence[Mapping[str, Any]] = result.get("gpus") or ()
    islands = {int(index): number for number, group in enumerate(result.get("nvlink_groups") or ()) for index in group}
    gpus: list[Gpu] = []
    notes: list[str] = []
    for place, one in enumerate(listed):
        index = int(one.get("index", place))
        product, numa, capability = str(one.get("name") or ""), _numa(one), _capability(name, index, one)
        instances = one.get("mig_instances") or ()
        for number, instance in enumerate(instances):
            label, profile = f"{index}:{instance.get('index', number)}", instance.get("profile") or "MIG"
            memory = _memory(name, index, instance)
            gpus.append(Gpu(name, label, f"{product} {profile}".strip(), memory, capability, numa, island=-1 - len(gpus), mig=True))
        if one.get("mig") and not instances:
            notes.append(f"GPU {index} of {name} has MIG on, but no instances: nothing can run on it. Make instances, or switch MIG off")
        elif not instances:
            gpus.append(Gpu(name, str(index), product, _memory(name, index, one), capability, numa, islands.get(index, UNLINKED + place)))
    if use:
        wanted = [str(label) for label in use]
        known = {gpu.label: gpu for gpu in gpus}
        if missing := [label for label in wanted if label not in known]:
            raise PlanError(f"{name} has no GPU {', '.join(missing)}; it has {', '.join(known) or 'none'}")
        gpus = [known[label] for label in wanted]
    return Host(name, tuple(gpus), tuple(notes))


def _capability(host: str, index: int, gpu: Mapping[str, Any]) -> tuple[int, int]:
    """Read ``9.0``; PlanError where it is missing."""
    major, dummy, minor = str(gpu.get("compute_capability") or "").partition(".")
    if not major.isdigit():
        raise PlanError(f"compute_capability of GPU {index} of {host} is {gpu.get('compute_capability')!r}; give it as '9.0'")
    return int(major), int(minor or 0)


def _memory(host: str, index: int, gpu: Mapping[str, Any]) -> int:
    """Read the memory; PlanError where it is missing."""
    memory = int(gpu.get("memory_mib") or 0)
    if memory <= 0:
        raise PlanError(f"memory_mib of GPU {index} of {host} is missing")
    return memory


def _numa(gpu: Mapping[str, Any]) -> int | None:
    """Read the NUMA node; machines with one tell -1."""
    node = gpu.get("numa_node")
    return None if node is None else max(0, int(node))
