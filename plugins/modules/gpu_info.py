#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: what GPUs a host has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Tell what NVIDIA GPUs a host has and how they are connected
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Asks C(nvidia-smi), the PCI bus and the kernel for the GPUs, their links with each other, the driver and the fabric manager.
  - It does not fail where there is no GPU, or none that can be used; RV(reason) says why there is none, and how to mend it.
  - RV(problems) says what is wrong although C(nvidia-smi) answers.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: linux}
"""

EXAMPLES = r"""
- name: Look at the GPUs
  sovereign.dify.gpu_info:
  register: gpu_host

- name: Refuse a host whose GPUs cannot be used
  ansible.builtin.assert:
    that: not gpu_host.reason
    fail_msg: "{{ gpu_host.reason }}"

- name: Refuse to spread a model over GPUs that NVLink does not connect
  ansible.builtin.assert:
    that: gpu_host.nvlink_groups | select('superset', [0, 1]) | list
    fail_msg: "GPU 0 reaches GPU 1 by {{ gpu_host.topology[0][1] }}."
"""

RETURN = r"""
gpus:
  description: The GPUs, by index. Empty where none can be used.
  returned: success
  type: list
  elements: dict
  contains:
    index: {description: 'Number by which C(nvidia-smi) knows it: the order on the PCI bus.', type: int, sample: 0}
    uuid: {description: What E(CUDA_VISIBLE_DEVICES) takes to select it whatever the order., type: str}
    name: {description: Name of the product., type: str, sample: NVIDIA H100 80GB HBM3}
    architecture: {description: Name of the architecture., type: str, sample: Hopper}
    compute_capability: {description: CUDA's number for what it can do. Null where an old driver does not tell., type: str, sample: '9.0'}
    pci_bus_id: {description: 'Its address on the PCI bus, as the kernel writes it.', type: str, sample: '0000:3b:00.0'}
    numa_node: {description: NUMA node that its PCI slot belongs to. Null where nobody tells., type: int, sample: 0}
    cpu_affinity: {description: 'Processors that are close to it, as a list of ranges.', type: str, sample: '0-15,32-47'}
    memory_mib: {description: Its memory in MiB., type: int, sample: 81559}
    memory_used_mib: {description: 'What of that is in use, in MiB.', type: int, sample: 0}
    ecc: {description: Whether ECC is on. Null where it has none., type: bool}
    ecc_pending: {description: Whether ECC will be on after its next reset., type: bool}
    ecc_uncorrectable: {description: Number of uncorrectable memory errors since the driver was loaded., type: int, sample: 0}
    ecc_uncorrectable_total: {description: Number of uncorrectable memory errors of its life., type: int, sample: 0}
    mig: {description: Whether MIG is on. Null where it cannot be divided., type: bool}
    mig_pending: {description: Whether MIG will be on after its next reset., type: bool}
    mig_instances:
      description: Slices that it has been cut into.
      type: list
      elements: dict
      contains:
        index: {description: 'Number of the MIG device on its GPU, as C(nvidia-smi) counts.', type: int, sample: 0}
        profile: {description: Name of its size. Empty where C(nvidia-smi) does not tell., type: str, sample: 3g.40gb}
        uuid: {description: What E(CUDA_VISIBLE_DEVICES) takes to select it. Empty where C(nvidia-smi) does not tell., type: str}
        gpu_instance: {description: Number of the GPU instance that it belongs to., type: int, sample: 1}
        compute_instance: {description: Number of the compute instance in that., type: int, sample: 0}
        memory_mib: {description: Its memory in MiB., type: int, sample: 40448}
        memory_used_mib: {description: 'What of that is in use, in MiB.', type: int, sample: 0}
    persistence: {description: Whether the driver keeps it initialised while nobody uses it., type: bool}
    power_w: {description: 'What it draws, in watts.', type: float, sample: 69.55}
    power_limit_w: {description: 'What it may draw, in watts.', type: float, sample: 700.0}
    nvlinks: {description: Number of its NVLinks that are up., type: int, sample: 18}
    nvlinks_down: {description: Number of its NVLinks that are down., type: int, sample: 0}
    nvlink_gbps:
      description: Raw speed of one of its NVLinks in one direction, in GB/s; of the slowest where they differ. Null where none is up.
      type: float
      sample: 26.562
    pcie_generation:
      description: Generation that its PCIe link runs at now. An idle link may be slowed down to save power.
      type: int
      sample: 5
    pcie_generation_max: {description: Highest generation that both it and its slot can., type: int, sample: 5}
    pcie_width: {description: Number of lanes of its PCIe link now., type: int, sample: 16}
    pcie_width_max: {description: Number of lanes that both it and its slot have., type: int, sample: 16}
    fabric_state:
      description: State of its registration with the NVSwitch fabric. Null where it hangs on none. Until it is V(Completed), CUDA does not start.
      type: str
      sample: Completed
    fabric_status: {description: How that registration went., type: str, sample: Success}
    virtualization: {description: How a hypervisor has given it to this host. Null on bare metal., type: str, sample: Pass-Through}
reason:
  description: Why there is no GPU that can be used, and how to mend it. Empty where there is one.
  returned: success
  type: str
  sample: This host has no NVIDIA device on its PCI bus.
problems:
  description:
    - What is wrong with the GPUs, the driver or the fabric, and how to mend it, although C(nvidia-smi) answers.
    - Among it are a GPU that has fallen off the bus, a driver whose library was upgraded under it, a fabric manager that is missing, not running or
      of another version than the driver, changes to MIG and ECC that wait for a reset, uncorrectable memory errors, NVLinks that are down, and a
      PCIe link with too few lanes.
  returned: success
  type: list
  elements: str
driver:
  description: NVIDIA's driver.
  returned: success
  type: dict
  contains:
    kernel_module: {description: Version of the module that the kernel has loaded. Null where it has none., type: str, sample: 580.159.04}
    library: {description: Version of the library that programs talk to. Null where there is none., type: str, sample: 580.159.04}
    consistent:
      description: Whether both are of one version. Null where one of them is missing. If they are not, no program can use a GPU.
      type: bool
    cuda: {description: Highest version of CUDA that the driver supports., type: str, sample: '13.0'}
fabric_manager:
  description: The service that sets up NVSwitches.
  returned: success
  type: dict
  contains:
    needed: {description: Whether the host has NVSwitches that it must manage., type: bool}
    installed: {description: Whether its program is there., type: bool}
    running: {description: Whether its service is active., type: bool}
    version: {description: 'Its version, which must be that of the driver.', type: str, sample: 580.159.04}
nvswitches:
  description: Number of NVSwitches that the host sees; since Blackwell, of the network functions through which they are managed.
  returned: success
  type: int
  sample: 4
topology:
  description:
    - How a GPU (row) reaches another (column), rows and columns in the order of RV(gpus).
    - V(NV18) is that many NVLinks, V(PIX) at most one PCIe bridge, V(PXB) several, V(PHB) a PCIe host bridge, V(NODE) several of them in a NUMA node,
      V(SYS) the link between NUMA nodes, V(X) itself.
    - Empty where C(nvidia-smi) does not tell.
  returned: success
  type: list
  elements: list
  sample: [[X, NV18], [NV18, X]]
p2p:
  description:
    - Whether a GPU (row) may read the memory of another (column), rows and columns in the order of RV(gpus).
    - V(OK), or the reason in the words of C(nvidia-smi), V(CNS) for the chipset, V(GNS) for the GPU, V(TNS) for the topology, V(NS) for none of them.
    - Empty where C(nvidia-smi) does not tell.
  returned: success
  type: list
  elements: list
  sample: [[X, OK], [OK, X]]
nvlink_groups:
  description:
    - Indices of GPUs that reach each other by NVLink, each each. Every GPU is in one group; one without such a link is a group of its own.
    - A GPU on which MIG is on is alone, because its slices cannot reach other GPUs.
  returned: success
  type: list
  elements: list
  sample: [[0, 1, 2, 3], [4, 5, 6, 7]]
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info.host import gather


def main() -> None:
    """Look, report."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, **asdict(gather()))


if __name__ == "__main__":
    main()
