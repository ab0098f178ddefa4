"""Step docker: a daemon that answers, installed and started where there is none."""

import importlib.util
import os
import shutil
import subprocess
import time
from pathlib import Path

from .steps import CACHE, StepError, run, say

# program: Debian package. The Docker client alone is not enough to run a daemon, so dockerd stands for docker.io.
MAKERS = {"mmdebstrap": ["mmdebstrap", "debian-archive-keyring"]}
START_SECONDS = 60
PID_FILE = Path("/var/run/docker.pid")


def answers() -> bool:
    """Tell whether a Docker daemon answers to this user."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, check=False)
    return asked.returncode == 0


def prepare() -> str | None:
    """Install and start what is missing."""
    did: list[str] = []
    missing = [package for program, names in MAKERS.items() if not _program(program) for package in names]
    if _base_images_given():
        missing = []  # host images come from a registry then: mmdebstrap is not used
    if not _has_ensurepip():
        missing.append("python3-venv")
    running = answers()
    if not running and not _program("dockerd"):
        missing.append("docker.io")
    if missing:
        _install(missing)
        did.append(f"installed {' '.join(missing)}")
    if not running and not answers():  # installing may have started it
        _start()
        did.append("started the Docker daemon")
    return ", ".join(did) or None


def _base_images_given() -> bool:
    return all(os.environ.get(f"LAB_BASE_IMAGE_{suite}") for suite in ("TRIXIE", "BOOKWORM"))


def _has_ensurepip() -> bool:
    """Tell whether this Python can make an environment with pip: Debian packs that part apart."""
    return importlib.util.find_spec("ensurepip") is not None


def _program(name: str) -> str | None:
    """Find a program, also in the sbin directories that a user's PATH may lack."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin")


def _install(packages: list[str]) -> None:
    """Install Debian packages, or say the command where this user may not."""
    command = f"apt-get update && apt-get install --no-install-recommends -y {' '.join(packages)}"
    if not shutil.which("apt-get"):
        raise StepError(
            f"missing here: {' '.join(packages)} (Debian names). Install them with your system's packages. "
            "Without mmdebstrap, set LAB_BASE_IMAGE_TRIXIE=debian:trixie and LAB_BASE_IMAGE_BOOKWORM=debian:bookworm."
        )
    if os.geteuid() != 0:
        raise StepError(f"missing here: {' '.join(packages)}. Run this, then try again:\n  sudo sh -c '{command}'")
    say(f"installing {' '.join(packages)}")
    run(["sh", "-c", command], env={"DEBIAN_FRONTEND": "noninteractive"})


def _start() -> None:
    """Start the daemon: by systemd where it runs, else detached in the background."""
    if os.environ.get("DOCKER_HOST"):
        raise StepError(f"no Docker daemon answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: start it, or unset that")
    if os.geteuid() != 0:
        raise StepError(
            "no Docker daemon answers to this user. Start it (sudo systemctl start docker), and let this user in: "
            "sudo usermod -aG docker $USER, then log in again."
        )
    process: subprocess.Popen[bytes] | None = None
    log = CACHE / "dockerd.log"
    where = str(log)
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"])
        where = "journalctl -u docker"
    elif not _daemon_runs():
        dockerd = _program("dockerd")
        if dockerd is None:
            raise StepError("docker.io is installed, yet there is no program dockerd.")
        # A daemon that was killed leaves its pid file, and refuses to start if that number is in use again.
        PID_FILE.unlink(missing_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen([dockerd], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process is not None and process.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise StepError(f"dockerd ended at once with exit code {process.returncode}; the end of {log}:\n{tail}")
        if time.monotonic() > deadline:
            raise StepError(f"the Docker daemon did not answer within {START_SECONDS} s; its log: {where}")
        time.sleep(0.5)


def _daemon_runs() -> bool:
    """Tell whether the process of the pid file is a Docker daemon, which then is only slow to answer."""
    try:
        pid = PID_FILE.read_text().strip()
        return Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd"
    except OSError:
        return False
