# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Instances of a systemd template unit: exactly the declared ones run, each with its present configuration.

An instance keeps, while it runs, a copy of the files it was started with. Comparing those with the present files tells whether it must be restarted;
unlike a handler, that also holds after a run that failed half-way.

Some things only one instance can have at a time, such as a GPU or a port. Where what an instance shall have is still held by another, both change
places together: all of them are stopped before any is started.

Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Run = Callable[[list[str]], str]
"""Runs a command and gives what it printed; raises if it fails."""

STARTING = ("activating", "reloading")
PROPERTIES = ("Id", "ActiveState", "SubState", "Result", "NRestarts", "UnitFileState", "NeedDaemonReload", "Job")


class InstanceError(Exception):
    """An instance that did not come up."""


@dataclass(frozen=True)
class State:
    """What systemd says of a unit.

    Attributes:
        active: ``active``, ``activating``, ``inactive``, ``failed`` …
        sub: Finer state, e.g. ``auto-restart``.
        result: Why it ended, e.g. ``exit-code``.
        restarts: How often systemd has restarted it by itself.
        enabled: Whether it starts with the machine.
        outdated: Whether its unit file has changed since systemd read it.
        job: Whether systemd still has to begin, or to end, what it was told to do with it.
    """

    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    restarts: int = 0
    enabled: bool = False
    outdated: bool = False
    job: bool = False

    @property
    def runs(self) -> bool:
        """Whether it serves."""
        return self.active in {"active", "reloading"}

    @property
    def comes_up(self) -> bool:
        """Whether it is on its way to serving, and not only waiting for its next attempt."""
        return self.active == "activating" and not self.crashed

    @property
    def crashed(self) -> bool:
        """Whether it ended by itself, and nobody has asked for another start since."""
        return not self.job and (self.active == "failed" or self.sub.startswith("auto-restart"))


@dataclass(frozen=True)
class Plan:
    """What has to be done, by instance.

    Attributes:
        remove: Not declared, but running, enabled or configured.
        enable: Declared, but not started with the machine.
        start: Neither running nor coming up, and nobody is in the way.
        blocked: Like these, but somebody else still holds what they need.
        begin_again: Coming up with an older configuration.
        stale: Running with an older configuration.
        groups: All that are stale or blocked; those of one group change places and are restarted together.
        in_the_way: Not declared, but holding what a blocked one needs.
        reload: Whether systemd must read its unit files again.
    """

    remove: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    begin_again: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    in_the_way: tuple[str, ...] = ()
    reload: bool = False


@dataclass
class Template:
    """A template unit.

    Attributes:
        name: Its name up to the ``@``.
        files: Files an instance is configured by; ``%i`` stands for its name.
        started_with: Directory, with ``%i``, in which a running instance keeps copies of those files as it was started with them.
        run: Runs a command.
        sleep: Waits some seconds.
        links: Where systemd keeps the links of units that start with the machine.
        claims: Environment variables in those files whose values, separated by commas, only one running instance can have.
        force: Instances that count as stale whatever they run with.
    """

    name: str
    files: tuple[str, ...]
    started_with: str
    run: Run
    sleep: Callable[[float], None] = time.sleep
    links: Path = field(default=Path("/etc/systemd/system"))
    claims: tuple[str, ...] = ()
    force: tuple[str, ...] = ()

    def unit(self, instance: str) -> str:
        """Give the name of an instance's unit."""
        return f"{self.name}@{instance}.service"

    def states(self, instances: Iterable[str]) -> dict[str, State]:
        """Ask systemd about instances."""
        units = {self.unit(instance): instance for instance in instances}
        if not units:
            return {}
        shown = self.run(["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *units])
        found = {}
        for block in shown.strip().split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if values.get("Id") in units:
                found[units[values["Id"]]] = State(
                    active=values["ActiveState"],
                    sub=values["SubState"],
                    result=values["Result"],
                    restarts=int(values["NRestarts"] or 0),
                    enabled=values["UnitFileState"] == "enabled",
                    outdated=values["NeedDaemonReload"] == "yes",
                    job=values.get("Job", "0") != "0",
                )
        return found

    def known(self) -> set[str]:
        """Find every instance that is loaded, starts with the machine, or has a file of its own."""
        pattern = re.compile(rf"{re.escape(self.name)}@(.+)\.service")
        listed = self.run(["systemctl", "list-units", "--all", "--full", "--plain", "--no-legend", self.unit("*")]).split()
        linked = [path.name for path in self.links.glob(f"*.wants/{self.unit('*')}")]
        found = {match[1] for name in [*listed, *linked] if (match := pattern.fullmatch(name))}
        for template in self.files:
            if "%i" in template:
                pattern = re.compile(re.escape(template).replace("%i", "(.+)"))
                found |= {match[1] for path in Path(template).parent.glob("*") if (match := pattern.fullmatch(str(path)))}
        return found

    def is_stale(self, instance: str) -> bool:
        """Tell whether any of its files is not the one it was started with."""
        if instance in self.force:
            return True
        kept = Path(self.started_with.replace("%i", instance))
        return any(_content(Path(file.replace("%i", instance))) != _content(kept / Path(file.replace("%i", instance)).name) for file in self.files)

    def held(self, instance: str, running: bool) -> set[tuple[str, str]]:
        """Read what an instance has that nobody else can have: while it runs, as it was started; else as it is configured."""
        kept = Path(self.started_with.replace("%i", instance))
        found = set()
        for file in self.files if self.claims else ():
            path = Path(file.replace("%i", instance))
            text = (_content(kept / path.name if running else path) or b"").decode(errors="replace")
            for name, value in re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE):
                if name in self.claims:
                    found |= {(name, part) for part in value.split(",") if part}
        return found

    def plan(self, declared: Iterable[str]) -> Plan:
        """Compare what is declared with what there is."""
        declared = list(declared)
        remove = tuple(sorted(self.known() - set(declared)))
        states = self.states([*declared, *remove])
        stale = {instance for instance in declared if self.is_stale(instance)}
        down = [name for name in declared if not states[name].runs and not states[name].comes_up]
        again = tuple(name for name in declared if states[name].runs and name in stale)
        # What runs holds what it was started with, and stale ones will want something else.
        holds = {name: self.held(name, running=True) for name, state in states.items() if state.runs or state.comes_up}
        wants = {name: self.held(name, running=False) for name in (*down, *again)}
        in_the_way = {name: {other for other, held in holds.items() if other != name and held & wanted} for name, wanted in wants.items()}
        blocked = tuple(name for name in down if in_the_way[name])
        return Plan(
            remove=remove,
            enable=tuple(name for name in declared if not states[name].enabled),
            start=tuple(name for name in down if not in_the_way[name]),
            blocked=blocked,
            begin_again=tuple(name for name in declared if states[name].comes_up and name in stale),
            stale=again,
            groups=_together([*again, *blocked], in_the_way),
            in_the_way=tuple(name for name in remove if any(name in in_the_way[other] for other in blocked)),
            reload=any(state.outdated for state in states.values()),
        )

    def remove(self, instances: Iterable[str]) -> None:
        """Stop instances for good and remove the files that are theirs alone."""
        for instance in instances:
            self.run(["systemctl", "disable", "--now", "--", self.unit(instance)])
            self.run(["systemctl", "reset-failed", "--", self.unit("*")])
            for file in self.files:
                if "%i" in file:
                    Path(file.replace("%i", instance)).unlink(missing_ok=True)

    def apply(
        self, plan: Plan, declared: Iterable[str], timeout: float | None, restart: bool = False, together: Iterable[Iterable[str]] = ()
    ) -> None:
        """Do what the plan says, and wait until everything declared serves.

        What does not run is started all at once; what runs with an older configuration, or waits for what somebody else still holds, only if a
        restart is wanted: one group of the plan after another, and then what may be at once, group by group.

        Args:
            plan: From ``plan``.
            declared: Instances that must serve in the end.
            timeout: Longest wait for the start, and for each restart, in seconds; None to start what does not run, and wait for nobody.
            restart: Whether to restart stale instances.
            together: Groups of instances that may be restarted at the same time, in their order.

        Raises:
            InstanceError: As soon as one crashes, or after the time-out; with the last lines of its journal.
        """
        self.remove(plan.remove)
        if plan.reload or plan.start or plan.enable or plan.begin_again:
            self.run(["systemctl", "daemon-reload"])
        if plan.enable:
            self.run(["systemctl", "enable", "--quiet", "--", *map(self.unit, plan.enable)])
        if plan.start:
            # Forgets failed attempts: with another configuration they say nothing.
            self.run(["systemctl", "reset-failed", "--", self.unit("*")])
            # Not "start": that would leave an instance which waits for its next attempt waiting.
            self.run(["systemctl", "restart", "--no-block", "--", *map(self.unit, plan.start)])
        if plan.begin_again:
            self.begin_again(plan.begin_again)
        if timeout is None:
            return
        self.wait([name for name in declared if name not in plan.blocked], timeout)
        if restart:
            stale = [name for group in plan.groups for name in group]
            alike = [[name for name in stale if name in set(group)] for group in together]
            alone = [list(names) for names in plan.groups if not any(set(names) <= set(group) for group in alike)]
            for group in [*alone, *alike]:
                if group:
                    if len(group) > 1 and group in alone:
                        # They change places: nobody starts before everybody has left.
                        self.run(["systemctl", "stop", "--", *map(self.unit, group)])
                    self.begin_again(group)
                    self.wait(group, timeout)

    def begin_again(self, instances: Iterable[str]) -> None:
        """Restart instances that run, without waiting for them."""
        self.run(["systemctl", "restart", "--no-block", "--", *map(self.unit, instances)])

    def wait(self, instances: list[str], timeout: float, pause: float = 1.0) -> None:
        """Wait until all serve.

        Raises:
            InstanceError: As soon as one crashes, or after the time-out.
        """
        restarts = {name: state.restarts for name, state in self.states(instances).items()}
        deadline = time.monotonic() + timeout
        while True:
            states = self.states(instances)
            for name, state in states.items():
                # An instance that has ended with exit code 0, such as a worker whose broker went away, gets one start by systemd.
                ended_well = state.result == "success"
                if (state.crashed and not ended_well) or state.restarts > restarts[name] + ended_well:
                    raise InstanceError(f"{self.unit(name)} did not come up ({state.result}). The end of its journal:\n{self.journal(name)}")
            missing = [name for name, state in states.items() if not state.runs]
            if not missing:
                return
            if time.monotonic() > deadline:
                units = ", ".join(map(self.unit, missing))
                raise InstanceError(f"{units} did not come up in {timeout:.0f} s. The end of the journal:\n{self.journal(missing[0])}")
            self.sleep(pause)

    def journal(self, instance: str, lines: int = 30) -> str:
        """Give the last lines that an instance has written."""
        return self.run(["journalctl", "--no-pager", "--output=cat", f"--lines={lines}", f"--unit={self.unit(instance)}"])


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _together(names: Iterable[str], in_the_way: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """Divide names into groups, so that whoever is in the way of another is in its group; in their order."""
    groups: list[list[str]] = []
    for name in names:
        linked = [group for group in groups if any(other in in_the_way[name] or name in in_the_way[other] for other in group)]
        groups = [group for group in groups if group not in linked]
        groups.append([other for group in linked for other in group] + [name])
    return tuple(map(tuple, groups))
