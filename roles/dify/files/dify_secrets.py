# Ansible managed
"""Takes the secrets out of a container's environment, and gives them to podman as such, before its unit starts.

podman keeps the environment of a container in its database, and shows it to whoever inspects the container. Of a secret it keeps the name there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def apart(environment: str, names: list[str]) -> tuple[dict[str, str], str]:
    """Take an environment apart.

    Args:
        environment: A variable a line, as podman reads it.
        names: Variables that are secrets.

    Returns:
        The secrets by name, and the lines of all others.
    """
    secrets: dict[str, str] = {}
    others = []
    for line in environment.splitlines(keepends=True):
        name, _separator, value = line.rstrip("\n").partition("=")
        if name in names:
            secrets[name] = value
        else:
            others.append(line)
    return secrets, "".join(others)


def stale(known: Iterable[str], unit: str, names: Iterable[str], units: Path) -> list[str]:
    """List podman's secrets that no unit of Dify takes any more.

    Args:
        known: Names of all that podman has.
        unit: The unit that starts.
        names: Its variables that are secrets.
        units: Directory of the units.
    """
    wanted = {f"{unit}.{name}" for name in names}
    found = []
    for name in known:
        owner, _dot, variable = name.partition(".")
        if variable and owner.startswith("dify_") and name not in wanted and (owner == unit or not (units / f"{owner}.container").exists()):
            found.append(name)
    return found


def podman(*words: str, value: str = "") -> str:
    """Ask podman for something about secrets."""
    return subprocess.run(["podman", "secret", *words], input=value, capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Give podman the secrets, and write the others where podman reads them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environment", type=Path, required=True, help="file with the whole environment")
    parser.add_argument("--others", type=Path, required=True, help="file for what is no secret")
    parser.add_argument("--units", type=Path, default=Path("/etc/containers/systemd"), help="directory of the units")
    parser.add_argument("unit", help="the unit that starts, whose name the secrets begin with")
    parser.add_argument("names", nargs="+", metavar="VARIABLE", help="variables that are secrets")
    given = parser.parse_args()
    secrets, others = apart(given.environment.read_text(encoding="utf-8"), given.names)
    if missing := sorted(set(given.names) - set(secrets)):
        print(f"{given.environment} has no {', '.join(missing)}", file=sys.stderr)
        return 1
    try:
        known = podman("ls", "--format={{.Name}}").split()
        wanted = {f"{given.unit}.{name}": value for name, value in secrets.items()}
        # Most starts change none of them, and each change of one costs podman as much as a look at all.
        there = sorted(wanted.keys() & set(known))
        held = json.loads(podman("inspect", "--showsecret", *there)) if there else []
        present = {item["Spec"]["Name"]: item["SecretData"] for item in held}
        for name, value in wanted.items():
            if present.get(name) != value:
                podman("create", "--replace", name, "-", value=value)
        if left := stale(known, given.unit, given.names, given.units):
            podman("rm", *left)
    except subprocess.CalledProcessError as error:
        print(f"podman secret {error.cmd[2]}: {error.stderr.strip()}", file=sys.stderr)
        return 1
    given.others.touch(mode=0o600)
    given.others.write_text(others, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
