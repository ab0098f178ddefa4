"""Print which files with secrets anybody on the host may read or change.

A file counts only if its directories let others reach it, and if it is not as its package has it: that has no secrets.
"""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path

# Below the root: what roles write passwords, tokens and private keys into, and programs of the distribution theirs.
PATTERNS = (
    "etc/alertmanager/alertmanager.yml",
    "etc/alertmanager/relay.json",
    "etc/containers/sovereign-auth.json",
    "etc/dify/*.env",
    "etc/dify/conninfo",
    "etc/haproxy/model_gateway/keys.map",
    "etc/nginx/clients.conf",
    "etc/patroni/*.yml",
    "etc/pgbackrest/*.conf",
    "etc/pgbouncer/userlist.txt",
    "etc/pgpool2/pgpool.key",
    "etc/pgpool2/pool_passwd",
    "etc/redis/*.acl",
    "etc/redis/*.password",
    "etc/redis/sovereign*.conf",
    "etc/service_proxy/haproxy.cfg",
    "etc/shadow",
    "etc/sovereign/**/*.env",
    "etc/sovereign/**/*.key",
    "etc/sovereign/**/*.pem",
    "etc/ssh/ssh_host_*_key",
    "etc/ssl/private/*",
    "etc/swift/proxy-server.conf",
    "etc/swift/swift.conf",
    "etc/wireguard/*",
    "run/dify/*/*.env",
    "run/dify/*/environment",
    "run/vllm/*/host.key",
    "var/lib/rabbitmq/.erlang.cookie",
)


def exposed(path: Path, root: Path) -> str:
    """Say what others may do with a file.

    Args:
        path: The file.
        root: Directory that others reach.

    Returns:
        ``read``, ``write``, or nothing.
    """
    mode = path.stat().st_mode
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents if parent.is_relative_to(root)):
        return ""
    return "write" if mode & stat.S_IWOTH else "read" if mode & stat.S_IROTH else ""


def packaged(root: Path) -> dict[str, str]:
    """Give the MD5 checksums of packages' configuration files, as dpkg has noted them, by path."""
    status = root / "var/lib/dpkg/status"
    text = status.read_text(encoding="utf-8", errors="replace") if status.exists() else ""
    return dict(re.findall(r"^ (/\S+) ([0-9a-f]{32})(?: |$)", text, re.MULTILINE))


def quoted(text: str) -> str:
    """Give a text as the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def report(patterns: tuple[str, ...] = PATTERNS, root: Path = Path("/")) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""
    lines, found = [], 0
    shipped: dict[str, str] | None = None
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        try:
            if not path.is_file():
                continue
            found += 1
            if may := exposed(path, root):
                shipped = packaged(root) if shipped is None else shipped
                known = shipped.get(f"/{path.relative_to(root)}")
                if known and known == hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest():
                    continue
                lines.append(f'sovereign_secret_file_exposed{{path="{quoted(str(path))}",others_may="{may}"}} 1')
        except FileNotFoundError:
            continue  # Replaced at this moment.
    return [
        "# HELP sovereign_secret_files Files with secrets that were looked at.",
        "# TYPE sovereign_secret_files gauge",
        f"sovereign_secret_files {found}",
        "# HELP sovereign_secret_file_exposed Files with secrets that anybody on the host may read or change.",
        "# TYPE sovereign_secret_file_exposed gauge",
        *lines,
    ]


if __name__ == "__main__":
    print("\n".join(report()))
