#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: what a host has of NVIDIA's driver, and what keeps it from working."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_info
short_description: Tell what a host has of NVIDIA's driver, and what keeps it from working
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Reads GPUs and NVSwitches from sysfs, Secure Boot's state, the kernels and their headers, the driver's packages, what DKMS has built, the loaded
    module and the libraries. Needs neither a driver nor a GPU.
  - Says in whole sentences what stands in the way, and what to do.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: debian}
options:
  branch:
    description: Branch of the driver that shall be, such as C(580); any where it is 0.
    type: int
    default: 0
  version:
    description: Version of the driver that shall be, such as C(580.95.05). Any of the branch where it is empty.
    type: str
    default: ""
  kernel_module:
    description: Kernel module that shall be. V(auto) takes the open one wherever all GPUs know it.
    type: str
    choices: [auto, open, proprietary]
    default: auto
  gpus:
    description: Number of GPUs that must be there.
    type: int
    default: 0
  own_kernel:
    description:
      - Whether the running kernel is the host's own. In a container it is the outer machine's, and modules are built for the installed ones alone.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Look at GPUs and driver
  sovereign.dify.nvidia_driver_info:
    branch: 580
    gpus: 8
  register: driver
"""

RETURN = r"""
gpus: {description: PCI addresses of the GPUs., returned: always, type: list, elements: str}
nvswitches: {description: PCI addresses of the NVSwitches., returned: always, type: list, elements: str}
kernel_module: {description: The kernel module that drives all of them., returned: always, type: str}
refusals: {description: "Why the driver cannot be installed; empty where it can.", returned: always, type: list, elements: str}
secure_boot: {description: Why a module that DKMS builds would not be loaded; empty where it would., returned: always, type: str}
headers: {description: Packages with headers that are missing., returned: always, type: list, elements: str}
unbuilt: {description: Kernels that have headers and no module of the installed driver., returned: always, type: list, elements: str}
packages: {description: The driver's packages that are installed., returned: always, type: list, elements: str}
installed: {description: Version of the installed kernel module's package; empty where there is none., returned: always, type: str}
library: {description: Version of the libraries; empty where there are none., returned: always, type: str}
loaded: {description: Version of the loaded module; empty where none is., returned: always, type: str}
nouveau: {description: "Whether the kernel's own driver is loaded.", returned: always, type: bool}
faults: {description: What is wrong with the driver that is installed., returned: always, type: list, elements: str}
drift: {description: What of it does not belong together., returned: always, type: list, elements: str}
reboot: {description: Whether a restart mends what is in RV(drift)., returned: always, type: bool}
users: {description: Processes that have a GPU open., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sovereign.dify.plugins.module_utils.nvidia_driver import (
    KERNEL_PACKAGE,
    DriverError,
    Host,
    choose_module,
    explain_drift,
    explain_modules,
    explain_packages,
    explain_secure_boot,
)


def main() -> None:
    """Look, and explain."""
    module = AnsibleModule(
        argument_spec={
            "branch": {"type": "int", "default": 0},
            "version": {"type": "str", "default": ""},
            "kernel_module": {"type": "str", "choices": ["auto", "open", "proprietary"], "default": "auto"},
            "gpus": {"type": "int", "default": 0},
            "own_kernel": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    host = Host(own_kernel=asked["own_kernel"])
    gpus, switches = host.devices()
    refusals = []
    if asked["gpus"] > len(gpus):
        refusals.append(
            f"This host must have {asked['gpus']} NVIDIA GPUs, and its PCI bus has {len(gpus)}{': ' if gpus else ''}{'; '.join(map(str, gpus))}. "
            "A GPU that is not on the bus is not seated, has no power, is switched off in the firmware, or is not passed through to this virtual "
            "machine. Otherwise correct the host's `gpus` in cluster.yml, take it out of the group, or, for one that gets its GPUs later, set "
            "nvidia_driver_without_gpus. Nothing has been installed."
        )
    kernel_module = "open"
    try:
        kernel_module = choose_module(gpus, asked["kernel_module"], asked["branch"])
    except DriverError as error:
        refusals.append(str(error))

    packages, flavours = host.packages()
    kernels = host.kernels()
    built = host.built()
    present = [package.name for package in packages if package.installed]
    driver = next((package for package in packages if KERNEL_PACKAGE.match(package.name)), None)
    installed = driver.upstream if driver else ""
    faults = explain_packages(packages)
    unbuilt = []
    if driver:
        done = {entry.kernel for entry in built if entry.version == installed and entry.state == "installed"}
        unbuilt = [kernel.name for kernel in kernels if kernel.headers and kernel.name not in done]
        faults += explain_modules(host, installed, kernels, built)
        wanted = asked["version"] or str(asked["branch"] or "")
        if wanted and not f"{installed}.".startswith(f"{wanted}."):
            faults.append(f"The installed driver is {installed}, and held, and {wanted} is asked for: upgrade it host by host (tasks_from: upgrade).")
    drift = explain_drift(host, packages, gpus, built)
    loaded, library = host.loaded(), host.library()
    missing = [f"linux-headers-{kernel.name}" for kernel in kernels if not kernel.headers] + [f"linux-headers-{flavour}" for flavour in flavours]
    headers = [name for name in missing if module.run_command(["dpkg-query", "--show", "--showformat=${db:Status-Status}", name])[1] != "installed"]
    module.exit_json(
        changed=False,
        gpus=[gpu.address for gpu in gpus],
        nvswitches=[switch.address for switch in switches],
        kernel_module=kernel_module,
        refusals=refusals,
        secure_boot=explain_secure_boot(host.secure_boot()),
        headers=headers,
        unbuilt=unbuilt,
        packages=present,
        installed=installed,
        library=library,
        loaded=loaded,
        nouveau=host.nouveau(),
        faults=faults,
        drift=drift,
        reboot=bool(gpus) and (host.nouveau() or bool(loaded and library and loaded != library)),
        users=host.users(),
    )


if __name__ == "__main__":
    main()
