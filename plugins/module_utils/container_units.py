# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Units that podman's generator makes of quadlets: exactly the declared ones run, each with its present configuration.

As with instances of a template, each keeps a copy of the files it was started with while it runs. Unlike those, generated units cannot be enabled
(what is in their ``[Install]`` section holds), and some are started by somebody else. Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.sovereign.dify.plugins.module_utils.unit_instances import Plan, Template

QUADLETS = Path("/etc/containers/systemd")


@dataclass
class Quadlets(Template):
    """Units whose names begin alike, one quadlet each.

    Attributes:
        name: What the names begin with.
        supervised: Units that somebody else starts and stops; they are only restarted.
        directory: Where quadlets lie.
    """

    supervised: tuple[str, ...] = ()
    directory: Path = QUADLETS

    def unit(self, instance: str) -> str:
        """Give the name of a unit; ``*`` stands for all of them."""
        return f"{self.name}*.service" if instance == "*" else f"{instance}.service"

    def known(self) -> set[str]:
        """Find every unit that has a quadlet or another file of its own."""
        found = {path.stem for path in self.directory.glob(f"{self.name}*.container")}
        for template in self.files:
            if "%i" in template:
                pattern = re.compile(re.escape(template).replace("%i", f"({re.escape(self.name)}.+)"))
                found |= {match[1] for path in Path(template).parent.glob(f"{self.name}*") if (match := pattern.fullmatch(str(path)))}
        return found

    def plan(self, declared: Iterable[str]) -> Plan:
        """Compare what is declared with what there is."""
        declared = list(declared)
        found = super().plan(declared)
        # systemd says so when a quadlet has changed, but not when one has come; who starts a unit otherwise has it read before.
        unread = any(self._is_unread(name) for name in declared if name in self.supervised)
        return Plan(
            remove=found.remove,
            start=tuple(name for name in found.start if name not in self.supervised),
            begin_again=found.begin_again,
            stale=found.stale,
            groups=found.groups,
            reload=found.reload or unread or bool(found.stale or found.begin_again),
        )

    def begin_again(self, instances: Iterable[str]) -> None:
        """Restart units that run; of those that somebody else starts, no other: since the plan was made it may have come to run elsewhere."""
        instances = list(instances)
        for verb, some in (("restart", False), ("try-restart", True)):
            if names := [self.unit(name) for name in instances if (name in self.supervised) is some]:
                self.run(["systemctl", verb, "--no-block", "--", *names])

    def _is_unread(self, name: str) -> bool:
        """Tell whether systemd does not know a unit yet."""
        shown = self.run(["systemctl", "show", "--property=LoadState", "--value", "--", self.unit(name)])
        return shown.strip() == "not-found"

    def remove(self, instances: Iterable[str]) -> None:
        """Stop units for good and remove the files that are theirs alone."""
        instances = list(instances)
        for instance in instances:
            self.run(["systemctl", "stop", "--", self.unit(instance)])
            for file in self.files:
                if "%i" in file:
                    Path(file.replace("%i", instance)).unlink(missing_ok=True)
        if instances:
            self.run(["systemctl", "daemon-reload"])
            self.run(["systemctl", "reset-failed", "--", self.unit("*")])

    def wait(self, instances: list[str], timeout: float, pause: float = 1.0) -> None:
        """Wait until all serve but those that somebody else starts, which this host may not run at all."""
        super().wait([name for name in instances if name not in self.supervised], timeout, pause)
