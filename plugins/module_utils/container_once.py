# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command of a container that does one thing for a module, and ends.

Runs on the hosts: the standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence


def once(
    name: str,
    image: str,
    *,
    user: str = "",
    environment_file: str = "",
    volumes: Sequence[str] = (),
    network: str = "host",
    timeout: int = 1800,
    options: Sequence[str] = (),
    command: Sequence[str] = (),
) -> list[str]:
    """Give the command that runs an image once, without a right that it does not need.

    Args:
        name: Name of the container; one of that name that was left behind gives way.
        image: Reference of the image, which must be there.
        user: Numbers of user and group, with a colon between; empty for the image's own.
        environment_file: File on the host with its environment; empty for none.
        volumes: Directories of the host that it sees, as podman writes them.
        network: The host's, or C(none).
        timeout: Seconds after which it is killed.
        options: More options of podman.
        command: What to run in place of the image's own.

    Returns:
        The words of the command.
    """
    return [
        *("podman", "run", "--rm", "--replace", f"--name={name}", "--pull=never", f"--network={network}", "--log-driver=journald"),
        # In the groups of who calls: it ends, and within them.
        *("--cgroups=disabled", "--cap-drop=all", "--security-opt=no-new-privileges", f"--timeout={timeout}"),
        *(f"--volume={volume}" for volume in volumes),
        *([f"--user={user}"] if user else []),
        *([f"--env-file={environment_file}"] if environment_file else []),
        *options,
        *([f"--entrypoint={command[0]}"] if command else []),
        image,
        *command[1:],
    ]
