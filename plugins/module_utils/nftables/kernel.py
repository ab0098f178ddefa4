# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's nftables, a scratch copy of it, and the timer that takes an unconfirmed table back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Runs a command with a text on its standard input: (exit status, standard output, standard error).
Runner = Callable[[Sequence[str], str], tuple[int, str, str]]

_ABSENT = "No such file or directory"


class NftError(Exception):
    """Nft or systemd refused; the text is what it said."""


class Nft:
    """Nftables in a network namespace: the host's own, or one that is entered by ``prefix``."""

    def __init__(self, run: Runner, prefix: Sequence[str] = ()) -> None:
        """Remember how to run commands."""
        self._run = run
        self._command = [*prefix, "nft"]

    def listing(self, table: str, counters: bool = False) -> str:
        """Text of a table, by default without the values of counters; empty where there is no such table."""
        rc, out, err = self._run([*self._command, *([] if counters else ["--stateless"]), "list", "table", *table.split()], "")
        if rc == 0:
            return out
        if _ABSENT in err:
            return ""
        raise NftError(err.strip())

    def tables(self) -> list[str]:
        """Families and names of all tables."""
        rc, out, err = self._run([*self._command, "list", "tables"], "")
        if rc:
            raise NftError(err.strip())
        return [line.removeprefix("table ").strip() for line in out.splitlines() if line.strip()]

    def load(self, text: str) -> None:
        """Load a ruleset, all of it or nothing."""
        rc, dummy, err = self._run([*self._command, "--file", "-"], text)
        if rc:
            raise NftError(err.strip())


@contextmanager
def scratch(run: Runner) -> Iterator[Nft]:
    """Nftables in a new network namespace, gone with its last process: what is loaded there touches no packet.

    A ruleset that loads there is right in every respect the kernel knows, and its listing there is what the live one must be.
    """
    # `cat` holds the namespace open until its standard input closes; its echo says that it is inside.
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        if holder.stdin is None or holder.stdout is None or holder.stderr is None:
            raise AssertionError("pipes were asked for")
        try:
            holder.stdin.write("ready\n")
            holder.stdin.flush()
        except BrokenPipeError:
            pass
        if holder.stdout.readline() != "ready\n":
            raise NftError(f"no network namespace to check the ruleset in: {holder.stderr.read().strip()}")
        yield Nft(run, ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"])


class Timer:
    """A transient systemd timer that loads a file unless it is stopped in time."""

    def __init__(self, run: Runner, unit: str) -> None:
        """Name the unit, without its suffix."""
        self._run = run
        self._unit = unit

    def running(self) -> bool:
        """Tell whether the timer still waits."""
        return self._run(["systemctl", "is-active", "--quiet", f"{self._unit}.timer"], "")[0] == 0

    def start(self, seconds: int, file: Path) -> None:
        """Start, or start anew."""
        self.stop()
        rc, dummy, err = self._run(
            [
                "systemd-run",
                f"--unit={self._unit}",
                f"--on-active={seconds}s",
                "--timer-property=AccuracySec=500ms",
                "--collect",
                "--quiet",
                "--description=Take the firewall rules back that nobody has confirmed",
                "nft",
                "--file",
                str(file),
            ],
            "",
        )
        if rc:
            raise NftError(f"the timer for taking the rules back does not start: {err.strip()}")

    def stop(self) -> None:
        """Stop the timer and, should it have gone off this moment, wait for what it started."""
        self._run(["systemctl", "stop", f"{self._unit}.timer"], "")
        # Starting a unit that is active waits for nothing, stopping a oneshot would cut it: `is-active` turns false when it is done.
        while self._run(["systemctl", "is-active", "--quiet", f"{self._unit}.service"], "")[0] == 0:
            pass
