"""What makes a host's image: runs as root inside a Debian root file system, with its own Python.

The first argument is the part to do, `bare` or `packages`; the part's settings come as JSON on standard input, because
arguments and the environment of a container would stay in its image.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# A lab host is thrown away: no fsync on unpacking, no manuals (half of the time of an install is writing).
DPKG_SETTINGS = """\
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/doc/*/copyright
"""

APT_SETTINGS = """\
Acquire::Languages "none";
Acquire::Retries "3";
"""

# Units with nothing to do in a container, and timers that would wake every host at the same time.
MASKED_UNITS = [
    *("apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "dev-hugepages.mount", "dpkg-db-backup.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "getty.target", "getty-static.service", "getty@.service"),
    *("kmod-static-nodes.service", "ldconfig.service", "man-db.timer", "modprobe@.service"),
    *("proc-sys-fs-binfmt_misc.automount", "serial-getty@.service", "sys-fs-fuse-connections.mount"),
    *("sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-firstboot.service"),
    *("systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-logind.service"),
    *("systemd-machine-id-commit.service", "systemd-modules-load.service", "systemd-networkd-wait-online.service"),
    *("systemd-pcrphase.service", "systemd-pstore.service", "systemd-random-seed.service", "systemd-remount-fs.service"),
    *("systemd-rfkill.socket", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service"),
    *("systemd-udev-settle.service", "systemd-udev-trigger.service", "systemd-udevd-control.socket"),
    *("systemd-udevd-kernel.socket", "systemd-udevd.service", "systemd-update-done.service", "systemd-update-utmp.service"),
]

# Where the journal is kept is Debian's choice or a role's. Named to come early, so that a role's drop-in wins.
JOURNAL_SETTINGS = """\
[Journal]
SystemMaxUse=32M
RuntimeMaxUse=32M
"""

# Every host makes its own key at its first boot: keys in the image would be the same for all.
SSH_KEY_UNIT = """\
[Unit]
Description=SSH host key of this lab host
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
RequiredBy=ssh.service
"""

# Modules run faster by it; whoever finds it away runs them as everywhere.
PYTHON_UNIT = """\
[Unit]
Description=What runs Ansible's modules in this lab host
Before=ssh.service

[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/lab/lab_python.py
# What modules start lives on.
KillMode=process
Restart=always
TasksMax=infinity
LimitNOFILE=1024:524288

[Install]
WantedBy=multi-user.target
"""

SSH_SETTINGS = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
"""


def bare_host(packages: list[str], sources: list[str], certificates: dict[str, str], proxies: dict[str, str], files: dict[str, str]) -> None:
    """Make a bare host that boots systemd in a container.

    Args:
        packages: What it has installed.
        sources: The lines of apt's list of sources, in place of all others.
        certificates: PEM certificates that it trusts beyond Debian's own, by the name of their file.
        proxies: The variables of the proxy; apt keeps the one for http.
        files: Texts of what makes modules run faster, by the path of their file.

    """
    write("/etc/dpkg/dpkg.cfg.d/lab", DPKG_SETTINGS)
    write("/etc/apt/apt.conf.d/90lab", APT_SETTINGS)
    if "http_proxy" in proxies:
        write("/etc/apt/apt.conf.d/91lab-proxy", f'Acquire::http::Proxy "{proxies["http_proxy"]}";\n')
    # A registry's Debian image empties the lists and caches after each call of apt; a host keeps them.
    remove("/etc/apt/apt.conf.d", "docker-*")
    remove("/etc/apt/sources.list.d", "*")
    write("/etc/apt/sources.list", "".join(f"{line}\n" for line in sources))
    for name, pem in certificates.items():
        write(f"/usr/local/share/ca-certificates/{name}.crt", pem)

    with image_making(proxies):
        install(packages)
        call("update-ca-certificates")
        call("systemctl", "mask", *MASKED_UNITS)
        call("systemctl", "set-default", "multi-user.target")
        write("/etc/systemd/journald.conf.d/10-lab.conf", JOURNAL_SETTINGS)
        remove("/etc/ssh", "ssh_host_*")
        write("/etc/systemd/system/lab-ssh-key.service", SSH_KEY_UNIT)
        write("/etc/ssh/sshd_config.d/00-lab.conf", SSH_SETTINGS)
        write("/etc/systemd/system/lab-python.service", PYTHON_UNIT)
        call("systemctl", "enable", "ssh.service", "lab-ssh-key.service", "lab-python.service")
        Path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)
        for path, text in files.items():
            write(path, text)
        Path("/usr/local/bin/lab-python3").chmod(0o755)
        call(sys.executable, "-m", "compileall", "-q", "/usr/local/lib/lab")
        Path("/usr/lib/python3/dist-packages/lab_modules.cache").mkdir(mode=0o700, exist_ok=True)


def role_packages(packages: list[str], proxies: dict[str, str]) -> None:
    """Install the roles' packages on a bare host and leave every service of theirs disabled.

    What the packages enable is for the roles to enable: a service that runs by accident would hide their bugs.

    Args:
        packages: What to install.
        proxies: The variables of the proxy.

    """
    # Debian would make a database cluster of its own; what a role makes is not to depend on whether its packages were baked in.
    write("/etc/postgresql-common/createcluster.d/lab.conf", "create_main_cluster = false\n")
    with image_making(proxies):
        before = enabled_units()
        install(packages)
        for unit in sorted(enabled_units() - before):
            call("systemctl", "disable", unit)


@contextlib.contextmanager
def image_making(proxies: dict[str, str]) -> Iterator[None]:
    """Let no service start while the block lasts, and leave behind it what an image should be without."""
    os.environ.update(proxies, DEBIAN_FRONTEND="noninteractive")
    policy = write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    yield
    policy.unlink()
    # Empty, not missing: systemd then makes a new id without taking the boot for a first one.
    write("/etc/machine-id", "")
    remove("/var/lib/dbus", "machine-id")
    # Apt's own caches, made now: a host's first use of apt would spend a second and 80 MB on them.
    call("apt-cache", "gencaches")
    remove("/var/log", "*.log")
    remove("/var/log", "apt")
    for directory in ("/tmp", "/var/tmp"):  # noqa: S108  (the image's, which nobody else uses)
        remove(directory, "*")


def install(packages: list[str]) -> None:
    """Install packages; apt's lists stay, so that a host can install more without an update."""
    call("apt-get", "update", "-q")
    call("apt-get", "install", "-q", "-y", "--no-install-recommends", *packages)
    call("apt-get", "clean")


def enabled_units() -> set[str]:
    """Return the names of the units that start by themselves."""
    listing = call("systemctl", "--root=/", "list-unit-files", "--state=enabled", "--no-legend", output=subprocess.PIPE)
    return {line.split()[0] for line in listing.splitlines() if line.strip()}


def write(path: str, text: str) -> Path:
    """Write a file, with its directory where that is missing."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def remove(directory: str, pattern: str) -> None:
    """Remove what the pattern finds in the directory, which need not exist."""
    for path in Path(directory).glob(pattern):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def call(*argv: str, output: int | None = None) -> str:
    """Run a command and return what it printed, if that is asked for; end everything if it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode} from: {' '.join(argv)}")
    return done.stdout or ""


PARTS: dict[str, Callable[..., None]] = {"bare": bare_host, "packages": role_packages}

if __name__ == "__main__":
    PARTS[sys.argv[1]](**json.load(sys.stdin))
