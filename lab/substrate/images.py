"""Step images: what a host of the lab is before any role has touched it, as container images.

Four tags: `sovereign-dify-lab:trixie` and `:bookworm` are bare hosts; with `-packages` they also carry the roles'
packages, installed but with every service disabled, so that a converge spends no time on unpacking.
"""

import base64
import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .steps import CACHE, LAB, StepError, digest, run, say

REPOSITORY = "sovereign-dify-lab"
LABEL = "sovereign.dify.recipe"
MIRROR = os.environ.get("LAB_DEBIAN_MIRROR") or "http://deb.debian.org/debian"
SECURITY_MIRROR = os.environ.get("LAB_DEBIAN_SECURITY_MIRROR") or "http://security.debian.org/debian-security"
SUITES = ("trixie", "bookworm")

# A bare host: what a minimal Debian installation and Ansible need, and nothing that a role installs.
BASE_PACKAGES = (
    "acl ca-certificates curl dbus iproute2 iputils-ping kmod less netbase openssh-server procps psmisc python3"
    " python3-apt sudo systemd systemd-sysv tzdata"
).split()

# Baked into the -packages images. One entry a role, so that it is plain why a package is here.
ROLE_PACKAGES: dict[str, list[str]] = {
    "baseline": ["chrony", "jq", "openssl", "rsync"],
    "pki": ["python3-cryptography", "ssl-cert"],
    "firewall": ["nftables"],
    "wireguard": ["wireguard-go", "wireguard-tools"],
    "service_proxy and model_gateway": ["haproxy"],
    "nginx": ["libnginx-mod-http-headers-more-filter", "nginx"],
    "vllm": ["libnuma1", "python3-venv"],
}


@dataclass(frozen=True)
class Image:
    """One image to make: its tag, what it is made from, and what is done to that."""

    tag: str
    suite: str
    source: str  # an image's name, or empty: made from packages by mmdebstrap
    script: Path
    packages: list[str]

    def recipe(self, source_id: str) -> str:
        """Hash everything that decides the image's contents, so that a change of it makes a new image."""
        certificates = [hashlib.sha256(pem.encode()).hexdigest() for pem in outer_certificates()]
        settings = [MIRROR, SECURITY_MIRROR, *sorted(_proxy().items().__iter__().__str__())] if False else []
        return digest(self.tag, source_id, self.script.read_text(), *self.packages, *certificates, *settings)
