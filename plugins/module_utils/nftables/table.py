# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of our own: compare, apply, confirm, roll back.

The ways of a change::

    sources ──join──> ruleset ──scratch namespace──> listing that must be
                                                        │ differs from the live one
                          previous table kept, timer started, ruleset loaded
                                                        │
             a new connection confirms: timer stopped, ruleset written to the boot file
             nobody confirms: the timer loads the previous table; the boot file was never touched
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.sovereign.dify.plugins.module_utils.nftables.kernel import Nft, NftError, Runner, Timer, scratch
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.source import Source, files_of, join, replacing

# A table that stands in the scratch namespace beside ours and must still be there afterwards.
_BYSTANDER = "inet bystander"


class RefusedError(Exception):
    """The ruleset must not be applied; the text says why and where."""


class RolledBackError(Exception):
    """Nobody confirmed in time."""


@dataclass(frozen=True)
class Outcome:
    """What was, or in check mode would be, done. ``before`` and ``after`` are listings, or texts of the boot file where only that differs."""

    changed: bool
    pending: bool = False
    drift: bool = False
    before: str = ""
    after: str = ""


class Table:
    """A table, the file that the boot loads it from, and the place for what is not confirmed yet."""

    def __init__(self, table: str, boot_file: Path, pending_dir: Path, run: Runner, write: Callable[[Path, str], None]) -> None:
        """Prepare; nothing is touched.

        Args:
            table: Family and name, such as ``inet sovereign``.
            boot_file: Holds the last confirmed ruleset.
            pending_dir: Directory (on a file system that a reboot empties) for the table of before and the ruleset that waits for confirmation.
            run: Runs a command.
            write: Writes a file at a stroke, readable by root alone.
        """
        self._table = table
        self._boot_file = boot_file
        self._previous = pending_dir / "previous.nft"
        self._waiting = pending_dir / "waiting.nft"
        self._expected = pending_dir / "expected.nft"
        self._pending_dir = pending_dir
        self._run = run
        self._write = write
        self._nft = Nft(run)
        self._timer = Timer(run, f"nftables-rollback-{table.replace(' ', '-')}")

    def present(self, sources: Sequence[str], seconds: int, check: bool = False) -> Outcome:
        """Make the live table and the boot file what the sources say.

        Args:
            sources: Files and directories.
            seconds: Time for the confirmation; 0 applies for good at once.
            check: Only compare.

        Raises:
            RefusedError: the sources are wrong; nothing was applied.
            FileNotFoundError: a source is not there.
        """
        ruleset = join(self._table, files_of(sources))
        wanted = self._rehearse(ruleset)
        live = self._nft.listing(self._table)
        confirmed = self._read(self._boot_file)
        if live == wanted:
            if self._timer.running():
                return Outcome(changed=False, pending=True)
            if confirmed == ruleset.text:
                return Outcome(changed=False)
            if not check:
                self._write(self._boot_file, ruleset.text)
            return Outcome(changed=True, before=confirmed, after=ruleset.text)
        if not check:
            self._apply(ruleset, wanted, seconds)
        # The files are as they were when somebody confirmed them: then it is the live table that somebody has changed.
        return Outcome(changed=True, pending=seconds > 0 and not check, drift=confirmed == ruleset.text, before=live, after=wanted)

    def confirm(self) -> Outcome:
        """Keep what was applied.

        Raises:
            RolledBackError: too late; the table of before is back.
        """
        waiting = self._read(self._waiting)
        if not waiting:
            return Outcome(changed=False)
        self._timer.stop()
        kept = self._nft.listing(self._table) == self._read(self._expected)
        if kept:
            self._write(self._boot_file, waiting)
        self._forget()
        if not kept:
            raise RolledBackError
        return Outcome(changed=True)

    def absent(self, check: bool = False) -> Outcome:
        """Take the table and its boot file away."""
        live, confirmed = self._nft.listing(self._table), self._read(self._boot_file)
        if not live and not confirmed:
            return Outcome(changed=False)
        if not check:
            self._timer.stop()
            self._nft.load(replacing(self._table, ""))
            self._boot_file.unlink(missing_ok=True)
            self._forget()
        return Outcome(changed=True, before=live or confirmed)

    def _rehearse(self, ruleset: Source) -> str:
        """Load the ruleset where it touches no packet, and say how the kernel lists it."""
        try:
            with scratch(self._run) as nft:
                nft.load(f"table {_BYSTANDER} {{}}\n")
                nft.load(ruleset.text)
                others = sorted({*nft.tables()} ^ {self._table, _BYSTANDER})
                wanted = nft.listing(self._table)
        except NftError as error:
            raise RefusedError(ruleset.locate(str(error))) from error
        if others:
            raise RefusedError(f"the files make or delete tables other than {self._table}, or not that one: {', '.join(others)}")
        return wanted

    def _apply(self, ruleset: Source, wanted: str, seconds: int) -> None:
        """Load the ruleset, with a way back unless ``seconds`` is 0."""
        if not seconds:
            self._timer.stop()
            self._nft.load(ruleset.text)
            self._write(self._boot_file, ruleset.text)
            self._forget()
            return
        # While an earlier change still waits, the way back leads behind that one, to what was confirmed last.
        if not (self._timer.running() and self._previous.exists()):
            self._pending_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self._previous, replacing(self._table, self._nft.listing(self._table, counters=True)))
        self._write(self._waiting, ruleset.text)
        self._write(self._expected, wanted)
        self._timer.start(seconds, self._previous)
        try:
            self._nft.load(ruleset.text)
        except NftError as error:
            # The timer may go off: what it loads is what is live, or what was before an earlier change that nobody has confirmed.
            raise RefusedError(ruleset.locate(str(error))) from error

    def _forget(self) -> None:
        """Remove what was kept for the way back."""
        for file in (self._previous, self._waiting, self._expected):
            file.unlink(missing_ok=True)

    @staticmethod
    def _read(file: Path) -> str:
        """Text of a file, empty where there is none."""
        return file.read_text(encoding="utf-8") if file.is_file() else ""
