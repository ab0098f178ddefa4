# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a lab host: offers an installed package a second time, as a newer release, in a repository of its own.

``repack.py <package>``: so that an upgrade can be tried without waiting for one, and without a network. The files are the installed ones, the scripts
those of the package; only the version is another. Prints the new version.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path("/srv/newer")
INFO = Path("/var/lib/dpkg/info")
SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "triggers", "conffiles", "templates", "config", "shlibs")


def output(*command: str) -> str:
    """Run a command and give what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Build, list, announce."""
    package = sys.argv[1]
    tree = REPOSITORY / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "DEBIAN").mkdir(parents=True)
    for line in output("dpkg-query", "--listfiles", package).splitlines():
        source = Path(line)
        if line == "/." or "diverted" in line or not (source.exists() or source.is_symlink()):
            continue
        target = tree / line.lstrip("/")
        if source.is_dir() and not source.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    status = output("dpkg-query", "--status", package)
    version = re.search(r"(?m)^Version: (.*)$", status)
    newer = (version.group(1) if version else "") + "+newer1"
    status = re.sub(r"(?m)^(Status|Config-Version): .*\n", "", status)
    status = re.sub(r"(?m)^Conffiles:\n(?: .*\n)*", "", status)
    control = re.sub(r"(?m)^Version: .*$", f"Version: {newer}", status)
    (tree / "DEBIAN/control").write_text(control)
    architecture = re.search(r"(?m)^Architecture: (.*)$", control)
    for script in SCRIPTS:
        for source in (INFO / f"{package}.{script}", INFO / f"{package}:{architecture.group(1) if architecture else ''}.{script}"):
            if source.exists():
                shutil.copy2(source, tree / "DEBIAN" / script)
    built = REPOSITORY / f"{package}.deb"
    output("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(built))
    shutil.rmtree(tree)
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    entry = f"{control.rstrip()}\nFilename: ./{built.name}\nSize: {built.stat().st_size}\nSHA256: {digest}\n\n"
    (REPOSITORY / "Packages").write_text(entry)
    Path("/etc/apt/sources.list.d/newer.list").write_text(f"deb [trusted=yes] file:{REPOSITORY} ./\n")
    print(newer)


if __name__ == "__main__":
    main()
