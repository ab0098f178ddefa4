"""Stand-ins for what cannot be had here: GPUs on the PCI bus, and NVIDIA's packages, by the names that NVIDIA gives them.

Their kernel module is a real one, though it does nothing: DKMS builds it against the headers of a kernel of the distribution. Their programs answer
what the roles ask, and no more. Writes to /srv/nvidia and over /sys/bus/pci/devices, takes apt's other sources away, and prints the checksum of the
packages' manifest. The scenarios cuda and nvidia_container_toolkit use it as well.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import tempfile
from pathlib import Path

DIRECTORY = Path("/srv/nvidia")
BUS = Path("/sys/bus/pci/devices")
LIBRARIES = "usr/lib/x86_64-linux-gnu"

MODULE = """\
#include <linux/init.h>
#include <linux/module.h>
static int __init stand_in_init(void) {{ return 0; }}
static void __exit stand_in_exit(void) {{ {fault} }}
module_init(stand_in_init);
module_exit(stand_in_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Stand-in for NVIDIA's module");
MODULE_VERSION("{version}");
"""
DKMS = """\
PACKAGE_NAME="nvidia"
PACKAGE_VERSION="{version}"
BUILT_MODULE_NAME[0]="nvidia"
DEST_MODULE_LOCATION[0]="/updates/dkms"
MAKE[0]="make -C $kernel_source_dir M=$dkms_tree/nvidia/{version}/build modules"
AUTOINSTALL="yes"
"""
# As dh_dkms writes them.
POSTINST = "#!/bin/sh\nset -e\n[ \"$1\" != configure ] || /usr/lib/dkms/common.postinst nvidia {version} '' '' $2\n"
PRERM = '#!/bin/sh\nset -e\nif [ "$(dkms status -m nvidia -v {version})" ]; then dkms remove -m nvidia -v {version} --all; fi\n'
SMI = """\
#!/bin/sh
# Stand-in: as many H100 as the PCI bus has GPUs, with error correction and without MIG.
count=$(grep -l 0x0302 /sys/bus/pci/devices/*/class | wc -l)
[ "$count" -gt 0 ] || {{ echo "No devices were found"; exit 6; }}
for index in $(seq 0 $((count - 1))); do
    case "$*" in
        --query-gpu=index,ecc*) echo "$index, Enabled, Enabled, Disabled, Disabled" ;;
        --query-gpu=index\\ *) echo "$index" ;;
        -L) echo "GPU $index: NVIDIA H100 80GB HBM3 (UUID: GPU-00000000-0000-0000-0000-00000000000$index)" ;;
        *) echo "stand-in {version} does not know $*"; exit 3 ;;
    esac
done
"""
CTK = """\
#!/bin/sh
# Stand-in: gives a container the host's /dev/null as each GPU, and the library.
library=$(readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1)
case "$1 $2" in
    "cdi list") sed -n 's/^- name: "\\(.*\\)"/nvidia.com\\/gpu=\\1/p' "$4"/nvidia.yaml ;;
    "cdi generate")
        mkdir -p "$(dirname "$NVIDIA_CTK_CDI_OUTPUT_FILE_PATH")"
        {{
            echo 'cdiVersion: 0.5.0'
            echo 'kind: nvidia.com/gpu'
            echo 'devices:'
            for name in 0 1 all; do
                printf -- '- name: "%s"\\n  containerEdits:\\n    deviceNodes:\\n    - {{path: /dev/nvidia0, hostPath: /dev/null}}\\n' "$name"
            done
            echo 'containerEdits:'
            echo "  mounts: [{{hostPath: $library, containerPath: /opt/$(basename "$library"), options: [ro, bind]}}]"
        }} > "$NVIDIA_CTK_CDI_OUTPUT_FILE_PATH" ;;
    *) exit 3 ;;
esac
"""
# The units as NVIDIA's package has them, as far as systemd reads them here.
REFRESH = """\
[Unit]
ConditionPathExists=/usr/bin/nvidia-smi
ConditionPathExists=/usr/bin/nvidia-ctk
After=multi-user.target
[Service]
Type=oneshot
Environment=NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml
EnvironmentFile=-/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env
ExecStart=/usr/bin/nvidia-ctk cdi generate
RemainAfterExit=yes
[Install]
WantedBy=multi-user.target
"""
REFRESH_PATH = "[Path]\nPathChanged=/usr/bin/nvidia-ctk\n[Install]\nWantedBy=multi-user.target\n"
DAEMON = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
NVCC = '#!/bin/sh\necho "Cuda compilation tools, release {version}, V{version}.0 (stand-in)"\n'
ALTERNATIVE = "#!/bin/sh\nupdate-alternatives --install /usr/local/cuda cuda /usr/local/cuda-{version} {priority}\n"

Files = dict[str, str]


def package(name: str, version: str, files: Files, depends: str = "", scripts: Files | None = None) -> None:
    """Write a package."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: stand-in <root@gpu.test>\nDescription: stand-in\n"
        for path, text in {**{f"DEBIAN/{script}": text for script, text in (scripts or {}).items()}, **files}.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if text.startswith("-> "):
                target.symlink_to(text.removeprefix("-> "))
                continue
            target.write_text(text)
            target.chmod(0o755 if text.startswith("#!") else 0o644)
        (root / "DEBIAN").mkdir(exist_ok=True)
        (root / "DEBIAN/control").write_text(control + (f"Depends: {depends}\n" if depends else ""))
        subprocess.run(["dpkg-deb", "--build", "-Znone", root, DIRECTORY], check=True, stdout=subprocess.DEVNULL)


def driver(version: str, compiles: bool) -> None:
    """Write the packages of a driver."""
    source = f"usr/src/nvidia-{version}"
    own = f"{version}-1"
    for name in ("nvidia-kernel-open-dkms", "nvidia-kernel-dkms"):
        files = {
            f"{source}/nvidia.c": MODULE.format(version=version, fault="" if compiles else "does_not_compile"),
            f"{source}/Makefile": "obj-m := nvidia.o\n",
            f"{source}/dkms.conf": DKMS.format(version=version),
        }
        package(name, own, files, "dkms", {"postinst": POSTINST.format(version=version), "prerm": PRERM.format(version=version)})
    library = {f"{LIBRARIES}/libnvidia-ml.so.{version}": "stand-in", f"{LIBRARIES}/libnvidia-ml.so.1": f"-> libnvidia-ml.so.{version}"}
    package("libnvidia-ml1", own, library)
    package("nvidia-driver-cuda", own, {"usr/bin/nvidia-smi": SMI.format(version=version)}, f"libnvidia-ml1 (= {own})")
    package("nvidia-modprobe", own, {})
    for name in ("nvidia-persistenced", "nvidia-fabricmanager"):
        package(name, own, {f"usr/lib/systemd/system/{name}.service": DAEMON})


def toolkits() -> None:
    """Write the packages of CUDA and of the container toolkit."""
    for version in ("12.9", "13.0"):
        digits = version.replace(".", "")
        scripts = {"postinst": ALTERNATIVE.format(version=version, priority=digits)}
        files = {f"usr/local/cuda-{version}/bin/nvcc": NVCC.format(version=version)}
        package(f"cuda-toolkit-{version.replace('.', '-')}", f"{version}.0-1", files, scripts=scripts)
    units = "usr/lib/systemd/system/nvidia-cdi-refresh"
    files = {"usr/bin/nvidia-ctk": CTK.format(), f"{units}.service": REFRESH, f"{units}.path": REFRESH_PATH}
    package("nvidia-container-toolkit-base", "1.18.0-1", files)


def bus(devices: list[tuple[str, str]]) -> None:
    """Lay a PCI bus with these devices, each with its class and its id, over the machine's own."""
    if not BUS.is_mount():
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "stand-in", BUS], check=True)
    for number, (kind, device) in enumerate(devices):
        at = BUS / f"0000:{number + 1:02x}:00.0"
        at.mkdir(exist_ok=True)
        for name, value in (("vendor", "0x10de"), ("device", f"0x{device}"), ("class", kind)):
            (at / name).write_text(f"{value}\n")


def main() -> None:
    """Make what is asked for, once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="append", default=[], metavar="ID")
    parser.add_argument("--nvswitch", action="append", default=[], metavar="ID")
    parser.add_argument("--does-not-compile", action="store_true")
    parser.add_argument("--toolkits", action="store_true", help="also the packages of CUDA and of the container toolkit")
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    options = parser.parse_args()
    bus([("0x030200", device) for device in options.gpu] + [("0x068000", device) for device in options.nvswitch])
    Path("/var/lib/metrics").mkdir(exist_ok=True)
    # A host that reaches no repository.
    Path("/etc/apt/sources.list").unlink(missing_ok=True)
    manifest = DIRECTORY / "SHA256SUMS"
    if not manifest.exists():
        DIRECTORY.mkdir(exist_ok=True)
        for version in options.versions:
            driver(version, not options.does_not_compile)
        if options.toolkits:
            toolkits()
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(DIRECTORY.glob("*.deb"))]
        manifest.write_text("".join(sums))
    print(hashlib.sha256(manifest.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
