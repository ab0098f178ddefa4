# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a unit, or a command's effect, is of the files that lie there now; and what has to be done if it is not.

A notification dies with the run that made it. So nothing here asks what this run has changed: for each unit there is a record of the digests of the
files that it was last seen to load, and of the invocation that loaded them. Who has no record of its present invocation (somebody else, or the boot,
has started it) is judged by when it began to start, and when its files last changed: a file that is younger was not loaded. Digests are taken before
systemd is told anything, and recorded after it has done it: a run that is cut in between does it once more, and never too seldom.

A clock that is set forward makes a file look older than it is: of a unit's start, the earlier of what the clock said then and what it would have said
by now counts. One that is set back between a start and the next change hides that change; a record does not ask the clock.

Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ansible_collections.sovereign.dify.plugins.module_utils.private_file import write_private

Run = Callable[[list[str]], str]
"""Runs a command and gives what it printed; raises if it fails."""

RECORDS = Path("/var/lib/sovereign/loaded")
PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "CanReload",
    "InvocationID",
    "InactiveExitTimestamp",
    "InactiveExitTimestampMonotonic",
)


class ServiceUnitsError(Exception):
    """A unit that is not there, or did not come up."""


@dataclass(frozen=True)
class Unit:
    """What one unit shall be.

    Attributes:
        name: Its name, with its type.
        state: ``started``; ``current`` for one that is kept up to date while it runs, and left alone otherwise; ``stopped``.
        enabled: Whether it starts with the machine; None to leave that alone.
        reload: Files that it takes up at a reload. A name may hold ``*``; of a directory, the files in it count.
        restart: Files that it takes up at a start alone.
        rule: What is done about the latter: ``now``, a restart; ``first``, a restart only where it has never run any of our files, as a package has
            just started it; ``report``, nothing, as members of a cluster are restarted one after another.
        stale: Whether something else has shown that it does not run its files.
        block: Whether to wait until it has started.
    """

    name: str
    state: str = "started"
    enabled: bool | None = None
    reload: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    rule: str = "now"
    stale: bool = False
    block: bool = True


@dataclass(frozen=True)
class Command:
    """A command whose effect is that of some files, such as what rebuilds the trust store.

    Attributes:
        name: What it is called in its record.
        argv: The command.
        files: The files; as those of a unit.
        boot: Whether a boot has the same effect.
    """

    name: str
    argv: tuple[str, ...]
    files: tuple[str, ...]
    boot: bool = False


@dataclass(frozen=True)
class Found:
    """What systemd says of a unit.

    Attributes:
        loaded: Whether it has a file.
        active: ``active``, ``reloading``, ``activating``, ``inactive``, ``failed`` …
        enabled: ``enabled``, ``disabled``, ``static`` …
        outdated: Whether its files have changed since systemd read them.
        invocation: Identity of the present run of it.
        began: When it began to start, in seconds since the epoch; 0 if never.
    """

    loaded: bool
    active: str
    enabled: str
    outdated: bool
    invocation: str
    began: float

    @property
    def runs(self) -> bool:
        """Whether it runs, or comes up."""
        return self.active in {"active", "reloading", "activating", "refreshing"}


@dataclass(frozen=True)
class Record:
    """What is remembered of a unit or a command.

    Attributes:
        epoch: The invocation that has loaded the files.
        files: Their digests as it loaded them.
        reload: Those of them that it takes up at a reload.
    """

    epoch: str
    files: dict[str, str]
    reload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """Something that has to be done.

    Attributes:
        name: Unit or command.
        action: ``start``, ``stop``, ``restart``, ``reload``, ``enable``, ``disable``, ``run``, ``reread`` (systemd reads the unit again).
        files: Why: the files that it has not loaded.
        was: What it was before, for the difference that Ansible shows.
    """

    name: str
    action: str
    files: tuple[str, ...] = ()
    was: str = ""


@dataclass(frozen=True)
class Plan:
    """What has to be done, in its order, and what is only told.

    Attributes:
        steps: What has to be done.
        due: Units that a restart is due of, with the files that they have not loaded.
        records: What is to be recorded of units that need nothing, by name.
    """

    steps: tuple[Step, ...] = ()
    due: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    records: Mapping[str, dict[str, str]] = field(default_factory=dict)


@dataclass
class Host:
    """Units and commands of a host.

    Attributes:
        run: Runs a command.
        records: Directory of the records.
        pending: Files that an earlier task would have written, in check mode.
        boot: Identity of the present boot.
    """

    run: Run
    records: Path = RECORDS
    pending: frozenset[str] = frozenset()
    boot: str = ""

    def look(self, names: Iterable[str]) -> dict[str, Found]:
        """Ask systemd about units."""
        names = list(names)
        if not names:
            return {}
        shown = self.run(["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", "--", *names])
        since = time.time() - time.monotonic()
        found = {}
        # One block for each name, in their order; an alias has the name of what it stands for.
        for name, block in zip(names, shown.strip().split("\n\n"), strict=True):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            found[name] = Found(
                loaded=values.get("LoadState") in {"loaded", "masked"},
                active=values.get("ActiveState", "inactive"),
                enabled=values.get("UnitFileState", ""),
                outdated=values.get("NeedDaemonReload") == "yes",
                invocation=values.get("InvocationID", ""),
                began=_began(values.get("InactiveExitTimestamp", ""), int(values.get("InactiveExitTimestampMonotonic") or 0) / 1e6 + since),
            )
        return found

    def digests(self, names: Iterable[str], known: Iterable[str] = ()) -> dict[str, str]:
        """Give the digest of each file; nothing for one that is not there.

        Args:
            names: Files, directories and patterns, as in ``Unit``.
            known: Files that were there once: those that the names stand for count, though they are gone.
        """
        names = list(names)
        gone = [Path(path) for path in known if any(_stands_for(name, Path(path)) for name in names)]
        return {str(path): _digest(path) for path in (*_expand(names), *gone)}

    def compare(self, name: str, epoch: str, began: float, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Give the digests of files, and which of them are not what was loaded.

        Args:
            name: Unit or command.
            epoch: Its present invocation.
            began: When that began, in seconds since the epoch.
            names: The files, as in ``Unit``. Others that it may have loaded are not judged.
        """
        record = self.record(name)
        known = record.files if record and record.epoch == epoch else {}
        digests = self.digests(names, known)
        found = [path for path, digest in digests.items() if (known[path] != digest if path in known else _younger(Path(path), began))]
        return digests, sorted({*found, *(self.pending & set(digests))})

    def record(self, name: str) -> Record | None:
        """Read a record; nothing where there is none, or none that can be read."""
        try:
            found = json.loads((self.records / f"{name}.json").read_text(encoding="utf-8"))
            return Record(str(found["epoch"]), dict(found["files"]), tuple(found["reload"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, epoch: str, digests: Mapping[str, str], reload: Iterable[str] = ()) -> None:
        """Record what has been loaded; what was known of other files of the same invocation stays."""
        record = self.record(name)
        known = record if record and record.epoch == epoch else Record(epoch, {})
        files = {**{path: digest for path, digest in known.files.items() if Path(path).exists()}, **digests}
        new = Record(epoch, files, tuple(sorted({*known.reload, *reload} & set(files))))
        if record != new:
            self.records.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.records / f"{name}.json", json.dumps(vars(new), indent=1, sort_keys=True) + "\n")

    def users(self, names: Iterable[str]) -> list[Unit]:
        """Give the units that are known to take up one of some files at a reload.

        Args:
            names: The files.
        """
        names = set(names)
        found = []
        for path in sorted(self.records.glob("*.json")) if self.records.is_dir() else ():
            record = self.record(path.stem)
            if record and names & set(record.reload):
                found.append(Unit(path.stem, "current", reload=tuple(sorted(names & set(record.reload)))))
        return found

    def plan(self, units: Iterable[Unit], check_mode: bool = False) -> Plan:
        """Compare units with what they shall be.

        Args:
            units: What shall be.
            check_mode: Whether a unit that is not there is one that an earlier task would have made, and no mistake.

        Raises:
            ServiceUnitsError: There is no such unit.
        """
        units = list(units)
        found = self.look(unit.name for unit in units)
        if not check_mode and any(not state.loaded for state in found.values()):
            # systemd may have looked for it before it was written.
            self.run(["systemctl", "daemon-reload"])
            found = self.look(unit.name for unit in units)
        steps: list[Step] = []
        due: dict[str, tuple[str, ...]] = {}
        records: dict[str, dict[str, str]] = {}
        for unit in units:
            state = found[unit.name]
            if not state.loaded and unit.state == "started" and not check_mode:
                raise ServiceUnitsError(f"There is no unit {unit.name} on this host: whatever brings it has not been installed or written.")
            if state.outdated:
                steps.append(Step(unit.name, "reread"))
            # What is static or generated is neither.
            if unit.enabled is not None and state.enabled in {"enabled", "disabled"} - {"enabled" if unit.enabled else "disabled"}:
                steps.append(Step(unit.name, "enable" if unit.enabled else "disable", was=state.enabled))
            if unit.state == "stopped":
                if state.runs:
                    steps.append(Step(unit.name, "stop", was=state.active))
            elif not state.runs:
                if unit.state == "started":
                    steps.append(Step(unit.name, "start", was=state.active if state.loaded else "not there"))
            else:
                self._compare(unit, state, steps, due, records)
        return Plan(tuple(steps), due, records)

    def _compare(self, unit: Unit, state: Found, steps: list[Step], due: dict[str, tuple[str, ...]], records: dict[str, dict[str, str]]) -> None:
        """Add what a unit that runs needs."""
        at_start, younger = self.compare(unit.name, state.invocation, state.began, unit.restart)
        at_reload, changed = self.compare(unit.name, state.invocation, state.began, unit.reload)
        never = unit.rule == "first" and self.record(unit.name) is None
        if (younger and unit.rule == "now") or ((younger or changed) and never):
            steps.append(Step(unit.name, "restart", tuple(sorted({*younger, *changed})), state.active))
            return
        if younger and unit.rule == "report":
            due[unit.name] = tuple(younger)
        if state.active == "activating":
            # It cannot be reloaded yet. What it has not loaded it still has not when the next run comes.
            return
        if changed or unit.stale:
            steps.append(Step(unit.name, "reload", tuple(changed), state.active))
        else:
            # What it was started with by somebody else, so that from now on the clock is not asked.
            records[unit.name] = {**at_reload, **{path: digest for path, digest in at_start.items() if path not in younger}}

    def apply(self, plan: Plan, units: Iterable[Unit]) -> None:
        """Do what a plan says.

        Args:
            plan: From ``plan``.
            units: What it was made of.

        Raises:
            ServiceUnitsError: A unit did not come up; with the end of its journal.
        """
        by_name = {unit.name: unit for unit in units}
        loaded: dict[str, dict[str, str]] = {name: dict(files) for name, files in plan.records.items()}
        if any(step.action in {"reread", "start", "restart"} for step in plan.steps):
            self.run(["systemctl", "daemon-reload"])
        for step in plan.steps:
            unit = by_name[step.name]
            if step.action == "reread":
                continue
            if step.action in {"enable", "disable"}:
                self.run(["systemctl", step.action, "--quiet", "--", unit.name])
                continue
            if step.action == "stop":
                self.run(["systemctl", "stop", "--", unit.name])
                continue
            taken = self.digests([*unit.reload, *(unit.restart if step.action != "reload" else ())])
            if step.was == "failed":
                # Forgets failed attempts: with other files they say nothing.
                self.run(["systemctl", "reset-failed", "--", unit.name])
            self._tell(unit, {"reload": "reload-or-restart"}.get(step.action, step.action))
            if unit.block:
                loaded[unit.name] = taken
        states = self.look(loaded)
        for name, digests in loaded.items():
            if not states[name].runs and by_name[name].state == "started" and not self._is_done(name):
                raise ServiceUnitsError(f"{name} did not stay up ({states[name].active}).{self._journal(name)}")
            if states[name].runs:
                self.write(name, states[name].invocation, digests, self.digests(by_name[name].reload))

    def _tell(self, unit: Unit, verb: str) -> None:
        """Tell systemd to do something with a unit."""
        try:
            self.run(["systemctl", verb, *([] if unit.block else ["--no-block"]), "--", unit.name])
        except ServiceUnitsError as error:
            raise ServiceUnitsError(f"{unit.name}: systemctl {verb} failed: {error}{self._journal(unit.name)}") from None

    def _is_done(self, name: str) -> bool:
        """Tell whether a unit is one that ends, and has ended well."""
        shown = self.run(["systemctl", "show", "--property=Type,Result,ActiveState", "--", name])
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return values.get("Type") == "oneshot" and values.get("Result") == "success"

    def _journal(self, name: str) -> str:
        """Give the last lines that a unit has written, to be put behind a complaint."""
        said = self.run(["journalctl", "--no-pager", "--output=cat", "--lines=15", f"--unit={name}"]).strip()
        return f" The end of its journal:\n{said}" if said else ""

    def is_due(self, command: Command, booted: float) -> list[str]:
        """Give the files that a command has not been run for.

        Args:
            command: The command.
            booted: When the host booted, in seconds since the epoch.
        """
        if command.boot:
            return self.compare(command.name, self.boot, booted, command.files)[1]
        record = self.record(command.name)
        known = record.files if record else {}
        digests = self.digests(command.files, known)
        return sorted({*(path for path, digest in digests.items() if known.get(path, "") != digest), *(self.pending & set(digests))})

    def carry_out(self, command: Command) -> None:
        """Run a command, and record the files that it was run for."""
        digests = self.digests(command.files)
        self.run(list(command.argv))
        path = self.records / f"{command.name}.json"
        path.unlink(missing_ok=True)
        self.write(command.name, self.boot if command.boot else "", digests)


def _began(said: str, reckoned: float) -> float:
    """Give when a unit began to start, in seconds since the epoch; 0 if it never did.

    Args:
        said: What the clock said then, such as ``Sun 2026-11-29 22:03:19.123456 UTC``.
        reckoned: By the clock of now.
    """
    if not said or said == "n/a":
        return 0.0
    moment = datetime.strptime(said, "%a %Y-%m-%d %H:%M:%S.%f %Z").replace(tzinfo=timezone.utc)  # noqa: UP017 - Python 3.9 on some hosts
    return min(moment.timestamp(), reckoned)


def _expand(names: Iterable[str]) -> list[Path]:
    """Give the files that names stand for, each once, in their order."""
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if "*" in name:
            found.update(dict.fromkeys(sorted(Path("/").glob(name.lstrip("/")))))
        elif path.is_dir():
            found.update(dict.fromkeys(sorted(child for child in path.rglob("*") if child.is_file())))
        else:
            found[path] = None
    return list(found)


def _stands_for(name: str, path: Path) -> bool:
    """Tell whether a name, which may be a directory's or a pattern, stands for a file."""
    return path.match(name) if "*" in name else path == Path(name) or Path(name) in path.parents


def _digest(path: Path) -> str:
    """Give a file's digest; nothing if it is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _younger(path: Path, began: float) -> bool:
    """Tell whether a file, or what it is a link to, has changed since a moment."""
    try:
        return max(path.stat().st_ctime, path.lstat().st_ctime) > began
    except OSError:
        return False


def booted_at() -> tuple[str, float]:
    """Give the identity of the present boot, and when it was, in seconds since the epoch.

    Source: ``/proc/sys/kernel/random/boot_id`` and, of a container too, when its first process was started.
    """
    ticks = int(Path("/proc/1/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()}-{ticks}", started
