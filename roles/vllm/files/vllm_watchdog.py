"""Restart instances of vLLM that hang, and leave busy ones alone.

``/health`` answers while the engine is dead or stands still, and a busy server answers late: neither tells whether it works. What the engine itself
reports does. Of each instance that systemd calls active, this reads ``/metrics`` and remembers what the engine last said: how many requests run and
wait, how many tokens it has read and written, how much of its cache is in use. As long as any of that changes, it works, however slowly.

An instance is killed, and so restarted by systemd, which calls it active again only when it has answered, if

- nothing changes for some time while requests run;
- nothing changes, no request seems to run, and yet it does not answer a question for one token (the engine may have hung before it could report);
- it does not answer at all for twice that time;
- it runs on a host that follows another in one instance over several, and has lost its connections with that host, which vLLM does not notice.

It is killed rather than stopped: a hung engine does not end its requests, and would keep those of its clients waiting for as long.

Run by ``vllm-watchdog.service``; the standard library only.
"""

from __future__ import annotations

import argparse
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.client import OK
from pathlib import Path

# Where this program is; Python's isolated mode does not look there.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from vllm_ready import (
    CanaryError,
    HopelessError,
    Report,
    Server,
    StartingError,
    any_holds,
    check,
    client_context,
    connected_inodes,
    environment_of,
    processes_in,
    read_report,
)

POLL_S = 2.0
# How often an instance that seems idle is asked for a token, and how often in a row that may fail.
CANARY_EVERY_S = 5.0
CANARIES = 2
# How long each answer may take, as a share of the time for which an instance may stand still.
CANARY_SHARE = 0.4
# A look that comes this late says that this program did not run (a frozen host, a suspended machine), so neither may have the instance.
LATE_S = 10.0
# A follower makes its connections anew only by a restart; one that is closed for a moment is no reason for one.
ALONE_S = 6.0


@dataclass
class Patient:
    """One instance, and what was seen of it.

    Attributes:
        name: Name of its model.
        stall_s: How long nothing may change while requests run, in seconds.
        metrics: Asks for ``/metrics`` with a time limit in seconds; OSError if there is no answer.
        canary: Asks for a token; raises what ``vllm_ready.check`` does.
        clock: Seconds that always go on.
        seen: Its last report.
        changed: When that was another than before.
        answered: When it last answered at all.
        asked: When it was last asked for a token.
        failed: How many of those questions in a row were not answered.
        looked: When it was last looked at.
    """

    name: str
    stall_s: float
    metrics: Callable[[float], str]
    canary: Callable[[], str]
    clock: Callable[[], float] = time.monotonic
    seen: Report | None = field(default=None, init=False)
    changed: float = field(default=0.0, init=False)
    answered: float = field(default=0.0, init=False)
    asked: float = field(default=0.0, init=False)
    failed: int = field(default=0, init=False)
    looked: float = field(default=-1e9, init=False)

    def look(self) -> str:
        """Look once.

        Returns:
            Why it must be restarted; empty if it need not.
        """
        begun, patience = self.clock(), 2 * self.stall_s
        if begun - self.looked > POLL_S + LATE_S:
            self.changed = self.answered = self.asked = begun
        try:
            report = read_report(self.metrics(patience))
        except OSError as error:
            self.looked = self.clock()
            # Who cannot agree on certificates may be well: that is for the operator, and a restart would not help.
            if isinstance(error, ssl.SSLError) or self.looked - begun > patience + LATE_S:
                self.answered = self.looked
            silent = self.looked - self.answered
            return f"it has not answered for {silent:.0f} s: {error}" if silent >= patience else ""
        now = self.looked = self.answered = self.clock()
        if report != self.seen:
            self.seen, self.changed, self.failed = report, now, 0
            return ""
        still = now - self.changed
        if report.requests:
            return f"nothing has changed for {still:.0f} s while {report.requests} requests run or wait" if still > self.stall_s else ""
        if not self.failed and now - max(self.changed, self.asked) < CANARY_EVERY_S:
            return ""
        return self._ask(report, patience)

    def _ask(self, before: Report, patience: float) -> str:
        """Ask an instance that seems idle for a token."""
        problem = ""
        try:
            self.canary()
        except (HopelessError, CanaryError, StartingError) as error:
            problem = str(error)
        self.asked = self.looked = self.clock()
        if not problem:
            self.failed = 0
            return ""
        try:
            after = read_report(self.metrics(patience))
        except OSError:
            return ""  # It is looked at again.
        # Work may have come meanwhile: whoever works is asked again when it is idle.
        self.failed = self.failed + 1 if after == before else 0
        self.looked = self.clock()
        return f"idle, it does not answer a question: {problem}" if self.failed >= CANARIES else ""


@dataclass
class Follower:
    """An instance's part on a host that follows another.

    Attributes:
        name: Name of its model.
        leader: Address of the host that it follows.
        joined: Tells whether any process of it has a connection with the leader.
        clock: Seconds that always go on.
        alone: Since when it has none; nothing while it has one.
    """

    name: str
    leader: str
    joined: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    alone: float | None = field(default=None, init=False)

    def look(self) -> str:
        """Look once.

        Returns:
            Why it must be restarted; empty if it need not.
        """
        now = self.clock()
        if self.joined():
            self.alone = None
            return ""
        self.alone = now if self.alone is None else self.alone
        return f"it has no connection with its leader {self.leader} any more" if now - self.alone > ALONE_S else ""


def active_instances() -> dict[str, str]:
    """Ask systemd which instances are active: their control groups by the names of their models."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=Id,ActiveState,ControlGroup", "vllm@*.service"], capture_output=True, text=True, check=False, timeout=30
    ).stdout
    found = {}
    for block in shown.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("ActiveState") == "active":
            found[values["Id"].removeprefix("vllm@").removesuffix(".service")] = values["ControlGroup"]
    return found


def describe(processes: Iterable[Path]) -> str:
    """Say what each process was doing, for whoever reads the journal later."""
    said = []
    for process in processes:
        try:
            status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
            said.append(f"{process.name} {status['Name']}: {status['State']}")
        except (OSError, KeyError):
            continue
    return ", ".join(said)


def restart(model: str, group: str, reason: str) -> None:
    """Say why, and have systemd kill an instance; its unit says that it is started again."""
    print(f"{model} is restarted: {reason}. Its processes: {describe(processes_in(group))}", flush=True)
    subprocess.run(["systemctl", "kill", "--signal=SIGKILL", f"vllm@{model}.service"], check=False, timeout=30)


def watch(model: str, group: str, options: argparse.Namespace, ended: threading.Event) -> None:
    """Look after one instance until it ends, or has to be killed."""
    try:
        environment = environment_of(model)
        port = int(environment["SOVEREIGN_PORT"])
    except (OSError, KeyError, ValueError):
        return  # It is ending, or something is unreadable for now: whoever finds it active next begins again.

    def server() -> Server:
        """The instance, to be spoken to with the certificate of now: it is renewed while this runs."""
        return Server(options.address, port, options.name, client_context(options.tls) if options.tls else None)

    def metrics(timeout: float) -> str:
        status, text = server().ask("GET", "/metrics", None, timeout)
        if status != OK:
            raise OSError(f"/metrics answers {status}")
        return str(text)

    instance: Patient | Follower
    if leader := environment.get("SOVEREIGN_LEADER", ""):
        instance = Follower(model, leader, lambda: any_holds(processes_in(group), connected_inodes(leader)))
    else:
        instance = Patient(model, options.stall, metrics, lambda: check(server(), model, CANARY_SHARE * options.stall))
    while not ended.wait(POLL_S):
        if reason := instance.look():
            # Ended meanwhile, or stopped by somebody: then that was it.
            if not ended.is_set() and active_instances().get(model) == group:
                restart(model, group, reason)
            return


def main(arguments: list[str]) -> int:
    """Read the arguments, watch for ever.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description="Restart instances of vLLM that hang.")
    parser.add_argument("--address", required=True, help="address that instances listen on")
    parser.add_argument("--name", required=True, help="name that their certificate is verified against")
    parser.add_argument("--tls", type=Path, help="directory with ca.crt, host.crt and host.key; plain HTTP without it")
    parser.add_argument("--stall", type=float, required=True, help="seconds for which nothing may change while requests run")
    options = parser.parse_args(arguments)
    watched: dict[str, tuple[threading.Thread, threading.Event]] = {}
    while True:
        active = active_instances()
        for model, (thread, ended) in list(watched.items()):
            if model not in active:
                ended.set()
            if not thread.is_alive():
                del watched[model]
        for model, group in active.items():
            if model not in watched:
                ended = threading.Event()
                thread = threading.Thread(target=watch, args=(model, group, options, ended), daemon=True)
                watched[model] = (thread, ended)
                thread.start()
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
