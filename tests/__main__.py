"""Run the project's tests in order, show what each stage took, and end with a count: ``python -m tests [stage ...]``.

A stage that fails does not hide the others, except that none is started on code that does not even lint.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import newest as newer
from tests.lab import ONE_OF_EACH_LIMIT
from tests.remembered import Passed

PROJECT = Path(__file__).resolve().parent.parent
CACHE = PROJECT / ".cache"
MOLECULE_LOGS = CACHE / "molecule"
COLLECTION = "ansible_collections/sovereign/dify"


@dataclass(frozen=True)
class Outcome:
    """How one check ended.

    Attributes:
        name: Stage and check.
        passed: Whether its exit code was 0.
        seconds: Wall time.
        complaints: What failed, a line each; shown in the summary, which is what one sees first.
    """

    name: str
    passed: bool
    seconds: float
    complaints: tuple[str, ...] = ()


def run(name: str, command: list[str], cwd: Path = PROJECT, captured: bool = False, **environment: str) -> Outcome:
    """Run one check with its output in the open.

    Args:
        name: What to call it in the summary.
        command: Program and arguments.
        cwd: Directory to run in.
        captured: Whether its output is shown when it has ended, since others run beside it.
        **environment: Variables to set beside the inherited ones.

    Returns:
        How it ended.
    """
    title = f"\n::: {name}: {' '.join(command)}"
    if not captured:
        print(title, flush=True)
    started = time.monotonic()
    kept: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if captured else {}
    try:
        done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, check=False, **kept)
        code, said = done.returncode, done.stdout
    except FileNotFoundError as error:
        code, said = 127, str(error)
    outcome = Outcome(name, code == 0, time.monotonic() - started)
    result = f"::: {name}: {'passed' if outcome.passed else f'FAILED (exit code {code})'} after {outcome.seconds:.0f} s"
    print("\n".join(filter(None, [title if captured else "", (said or "").rstrip(), result])), flush=True)
    return outcome


def twice(name: str, command: list[str], captured: bool = False) -> Outcome:
    """Run tests that kill things and measure; what failed is run once more, and the summary says so by another name.

    Args:
        name: What to call them in the summary.
        command: pytest and its arguments.
        captured: As of ``run``.
    """
    outcome = run(name, command, captured=captured)
    return outcome if outcome.passed else run(f"{name}, what failed at a second attempt", [*command, "--last-failed"], captured=captured)


def lint() -> list[Outcome]:
    """Static checks of YAML, Ansible, Python and the documentation, two at a time."""
    linted = ["playbooks", "roles", "molecule", "inventories", "meta", "galaxy.yml", "requirements.yml", "changelogs"]
    checks: dict[str, list[str]] = {
        # The longest first, so that both end together.
        "ansible-lint": ["ansible-lint", "--offline", *linted],
        "mypy": ["env", "MYPYPATH=collections", "mypy", "--strict", "-p", "ansible_collections.sovereign.dify.plugins"],
        "mypy of lab and tests": ["mypy", "--strict", "--cache-dir=.mypy_cache/tests", "lab", "tests", "docs", "playbooks/drills/files"],
        "plugin documentation": ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", "."],
        "generated pages": [sys.executable, "docs/generate.py", "--check"],
        "yamllint": ["yamllint", "--strict", "."],
        "ruff": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "changelog": ["antsibull-changelog", "lint"],
    }

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: run(f"lint: {name}", checks[name], captured=True), checks))


def unit(captured: bool = False) -> list[Outcome]:
    """Unit tests.

    Args:
        captured: As of ``run``.
    """
    return [run("unit", ["pytest", "tests/unit", "--numprocesses", "2"], captured=captured)]


def sanity(*prefix: str) -> list[Outcome]:
    """Ansible's own sanity tests, over a copy at the path that ansible-test insists on; and the artefact that users install.

    Args:
        *prefix: Words before each command; with any, others run beside them, and what they print is shown when they have ended.
    """
    # Outside this tree: ansible-test would ask its git which files there are, and learn that none of the copies is tracked.
    root = Path(tempfile.mkdtemp(prefix="sanity-"))
    collection = root / COLLECTION
    listed = subprocess.run(["git", "ls-files", "--cached", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        source = PROJECT / name
        # What runs at the users' place. The workshop (lab/, tests/, molecule/) is checked by the linters above, by stricter rules.
        shipped = ("plugins/", "roles/", "playbooks/", "meta/", "changelogs/", "tests/config.yml", "galaxy.yml", "README.md")
        if not name.startswith(shipped) or not source.exists():
            continue
        target = collection / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    cached = root / "home/.ansible/test/cache"
    cached.mkdir(parents=True)
    for release in ("20_3_4", "21_3_1", "24_2"):
        shutil.copy2(PROJECT / "tests/tools/get_pip.py", cached / f"get_pip_{release}.py")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    outcomes = [
        run(
            "sanity: ansible-test",
            [*prefix, "ansible-test", "sanity", "--venv", "--color", "no", "--python", version],
            cwd=collection,
            captured=bool(prefix),
            HOME=str(root / "home"),
        ),
        run("sanity: artefact", [*prefix, "pytest", "tests/artefact", "-q"], captured=bool(prefix)),
    ]
    shutil.rmtree(root)
    return outcomes


def newest(*prefix: str) -> list[Outcome]:
    """The collection under newer releases of Ansible than the pinned one (``tests/newest.py``).

    Args:
        *prefix: Words before each command.
    """
    return [shown(f"newest: {check.name}", check) for check in newer.checks(*prefix)]


def shown(name: str, check: newer.Check) -> Outcome:
    """Show how a check under a newer release of Ansible ended, now that it has.

    Args:
        name: What to call it in the summary.
        check: How it ended.
    """
    result = "FAILED" if check.faults else "passed"
    said = filter(None, [f"\n::: {name}", check.said.rstrip(), *check.faults, f"::: {name}: {result} after {check.seconds:.0f} s"])
    print("\n".join(said), flush=True)
    return Outcome(name, not check.faults, check.seconds, check.faults)


NEED_MORE_THAN_HOSTS = {"dify": "archives", "log_store": "archives", "log_shipper": "archives", "vllm": "vllm"}
"""Scenarios that run what takes minutes to prepare on a fresh machine, and which part of the substrate that is."""


LAST = 6
"""How many of the shortest scenarios take, two at a time, as long as the lab takes to come up."""

MIDST = 6
"""How many of the longest scenarios begin before what else takes as long as the next ones, and needs what is prepared meanwhile."""

HEAVY = ("dify", "object_storage", "vllm", "pgbackrest")
"""Scenarios whose services alone can keep two cores busy. Two of them at once leave each other's reloads and health checks so late that they fail."""


def scenarios() -> list[str]:
    """Names of the Molecule scenarios of single roles, the slowest first so that the workers end together."""
    names = sorted(path.parent.name for path in PROJECT.glob("molecule/*/molecule.yml"))
    slowest_first = [
        # pgbouncer runs twice (tests/newest.py).
        *(*HEAVY, "model_gateway", "patroni", "nginx", "etcd", "pgpool", "pgbouncer", "rabbitmq", "redis"),
        *("prometheus", "status_page", "nvidia_driver", "alertmanager", "service_proxy", "wireguard", "firewall", "keepalived", "pki"),
    ]
    rank = {name: position for position, name in enumerate(slowest_first)}
    return sorted((name for name in names if name != "lab"), key=lambda name: rank.get(name, len(rank)))


class Turns:
    """Whose turn it is: jobs in their order, but no two heavy ones at once as long as there is another one to do.

    Args:
        jobs: Names, those that shall begin first at the beginning.
        heavy: Which of them are heavy.
    """

    def __init__(self, jobs: Iterable[str], heavy: Collection[str]) -> None:
        """Take the jobs."""
        self.left, self.heavy, self.running = list(jobs), set(heavy), set[str]()
        self.lock = threading.Lock()

    def begin(self) -> str | None:
        """Give the next job to a worker that has nothing to do; nothing if none is left."""
        with self.lock:
            light = [name for name in self.left if name not in self.heavy]
            waits = bool(self.heavy & self.running)
            name = next(iter(light if light and waits else self.left), None)
            if name is not None:
                self.left.remove(name)
                self.running.add(name)
            return name

    def end(self, name: str) -> None:
        """Note that a job has ended."""
        with self.lock:
            self.running.remove(name)


def containers(name: str, *options: str) -> list[str]:
    """Give the names of a scenario's containers.

    Args:
        name: The scenario's name.
        *options: For ``docker ps``, such as ``--all``.
    """
    text = (PROJECT / f"molecule/{name}/inventory/cluster.yml").read_text(encoding="utf-8")
    cluster = re.search(r"^name: (\S+)", text, re.MULTILINE)
    label = f"label=org.sovereign-dify.lab={cluster[1] if cluster else name}"
    command = ["docker", "ps", *options, "--filter", label, "--format", "{{.Names}}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def left_over(name: str) -> bool:
    """Tell whether a run that was interrupted has left something of a scenario behind: hosts, what they were given, or Molecule's own memory of them.

    Args:
        name: The scenario's name.
    """
    remembered = list(Path("~/.ansible/tmp").expanduser().glob(f"molecule.*.{name}"))
    return bool(containers(name, "--all") or remembered or (PROJECT / f"molecule/{name}/inventory/.state").exists())


STANDINS = "standins"


def standins() -> list[Outcome]:
    """What the stand-in for Dify does, compared with what Dify was seen to do (``lab/standins/dify/README.md``). It needs containers of its own."""
    passed, began = Passed(), time.time()
    if when := passed.when(STANDINS):
        return [Outcome(f"{STANDINS}, as they are, on {when}", True, 0)]
    if prepared:
        prepared.archives.result()
    outcome = twice(STANDINS, ["pytest", "tests/standins", "-q"], captured=True)
    if outcome.passed and outcome.name == STANDINS:
        passed.note(STANDINS, None, began)
    return [outcome]


QUIET = (
    *("pki", "firewall", "container_engine", "nvidia_driver", "wireguard", "exporters", "grafana", "baseline", "log_shipper", "cuda"),
    "nvidia_container_toolkit",
)
"""Scenarios that time nothing, and so can run in whatever time the lab's tests leave the processors; the slowest first."""

MODEST = ("nice", "-n", "10")
"""What those are run by: they yield, but not for so long that what they wait for is given up."""


@dataclass(frozen=True)
class Scenario:
    """A Molecule scenario of a single role.

    Attributes:
        name: Its name.
        prefix: Words before its commands. With any, others run beside it that measure: its hosts, too, get what those leave of the processors.
    """

    name: str
    prefix: tuple[str, ...] = ()

    def act(self, log: Path, action: str, *options: str, **environment: str) -> str | None:
        """Run an action of Molecule; give what it printed if it failed."""
        command = [*self.prefix, "molecule", action, "--scenario-name", self.name, *options]
        noted = {"LAB_READS": str(MOLECULE_LOGS / f"{self.name}.reads"), "LAB_READS_BELOW": str(PROJECT)}
        variables = {**os.environ, "MOLECULE_COMMAND_BORDERS": "0", **noted, **({"LAB_CPU_SHARES": "256"} if self.prefix else {}), **environment}
        with log.open("w") as stream:
            code = subprocess.run(command, cwd=PROJECT, stdout=stream, stderr=subprocess.STDOUT, env=variables, check=False).returncode
        return log.read_text(errors="replace") if code else None

    def outcomes(self, passed: Passed) -> list[Outcome]:
        """Run it, unless it has passed as it is; tests that fail are run once more, and the outcome says so.

        Args:
            passed: What has passed as it is.
        """
        name = self.name
        if when := passed.when(name):
            print(f"::: molecule: {name}: has passed as it is, on {when}", flush=True)
            return [Outcome(f"molecule: {name}, as it is, on {when}", True, 0)]
        if prepared and name in NEED_MORE_THAN_HOSTS:
            getattr(prepared, NEED_MORE_THAN_HOSTS[name]).result()
        MOLECULE_LOGS.mkdir(parents=True, exist_ok=True)
        started, began = time.monotonic(), time.time()
        log, clean, record = (MOLECULE_LOGS / f"{name}.{kind}" for kind in ("log", "destroy.log", "reads"))
        record.unlink(missing_ok=True)
        called, complaints = f"molecule: {name}", []
        if left_over(name):
            for action in ("destroy", "reset"):
                self.act(clean, action)
        said = self.act(log, "test", "--destroy=never")
        if said is not None:
            # The log goes out with each failure, so that one that a second attempt does not show is not forgotten.
            print(f"::: {called}: FAILED after {time.monotonic() - started:.0f} s\n{said[-20000:]}", flush=True)
            complaints = re.findall(r"^(?:FAILED|ERROR) .*|^fatal: .*", said, re.MULTILINE)
            failed = set(re.findall(r"^(?:FAILED|ERROR) \S*::(\w+)", said, re.MULTILINE))
            called += " at the second attempt"
            if failed:
                said = self.act(log, "verify", PYTEST_ADDOPTS=f"-k '{' or '.join(sorted(failed))}'")
            else:
                self.act(clean, "destroy")
                said = self.act(log, "test", "--destroy=never")
            if said is not None:
                print(said[-20000:], flush=True)
                complaints += re.findall(r"^(?:FAILED|ERROR) .*|^fatal: .*", said, re.MULTILINE)
        self.act(clean, "destroy")
        outcome = Outcome(called, said is None, time.monotonic() - started, tuple(complaints))
        counted = "; ".join(re.findall(r"=+ (.*(?:passed|failed).*?) =+", log.read_text(errors="replace")))
        print(f"::: {called}: {'passed' if outcome.passed else 'FAILED'} after {outcome.seconds:.0f} s; {counted}", flush=True)
        found, complete = [outcome], True
        if outcome.passed and name == newer.SCENARIO:
            check = newer.scenario(name)
            self.act(clean, "destroy")
            found.append(shown(f"molecule: {name} under {check.name}", check))
            complete = not check.left_out
        # What passed at the second attempt alone has not shown that it passes.
        if complete and not complaints and all(each.passed for each in found):
            passed.note(name, record, began)
        return found


def molecule(
    names: Collection[str] | None = None, first: Callable[[], object] | None = None, beside: Callable[[], object] | None = None
) -> list[Outcome]:
    """Molecule scenarios of single roles, each in networks and with addresses of its own.

    Three at a time, of which one is heavy: each waits for its services as long as it computes. They kill, freeze and time things beside each other on
    two cores: tests that fail are run once more, and the summary says so. What has passed as it is, is not run (``tests/remembered.py``), and the
    summary says when it has. One runs under Ansible's newest release, too, and has passed if it has under both.

    Args:
        names: Which scenarios, the slowest first; all by default.
        first: What else there is to do meanwhile, as long as the longest of the scenarios.
        beside: Likewise, from when only the last scenarios are left.
    """
    names = scenarios() if names is None else names
    passed = Passed()
    also = {name: job for name, job in {"first": first, "beside": beside}.items() if job}
    latter = max(0, len(names) - LAST)
    midst = min(MIDST, latter)
    listed = list(names)
    order = [*listed[:midst], "first", *listed[midst:latter], "beside", *listed[latter:]]
    turns = Turns([name for name in order if name in names or name in also], HEAVY)
    outcomes: dict[str, list[Outcome]] = {}

    def work() -> None:
        while name := turns.begin():
            if job := also.get(name):
                job()
            else:
                outcomes[name] = Scenario(name).outcomes(passed)
            turns.end(name)

    with ThreadPoolExecutor() as pool:
        for worker in [pool.submit(work) for _ in range(int(os.environ.get("MOLECULE_WORKERS", "3")))]:
            worker.result()
    return [outcome for name in names for outcome in outcomes[name]]


def lab_up(beside: bool = False) -> list[Outcome]:
    """Bring the lab up: containers, check mode on fresh hosts, and all roles.

    Args:
        beside: Whether others run beside this, so that what it prints is shown when it has ended.
    """
    subprocess.run([sys.executable, "-m", "lab", "down"], cwd=PROJECT, check=False, capture_output=True)  # what an interrupted run left behind
    outcomes = [prepared.vllm.result()] if prepared else []
    containers = ["molecule", "create", "--scenario-name", "lab"]
    outcomes.append(run("lab: containers", containers, captured=beside, MOLECULE_COMMAND_BORDERS="0"))
    # The state directory is new, and the limit leaves out hosts that could carry another's mark: nobody but us can know that they do not.
    known = "--extra-vars=cluster_adopt_state=true"
    check = ["ansible-playbook", "-i", "inventories/lab", "playbooks/site.yml", "--check", "--diff", ONE_OF_EACH_LIMIT, known]
    outcomes.append(run("lab: check mode on fresh hosts", check, captured=beside))
    outcomes.append(run("lab: up", [sys.executable, "-m", "lab", "up"], captured=beside))
    return outcomes


def lab(outcomes: list[Outcome] | None = None) -> list[Outcome]:
    """Test the whole lab end to end, and take it down.

    Args:
        outcomes: How it was brought up, if it was already; the last one says whether it is.
    """
    outcomes = outcomes or lab_up()
    if outcomes[-1].passed:
        outcomes.append(twice("lab: end to end", ["pytest", "tests/lab", "-v", "--durations=10"]))
    if os.environ.get("LAB_KEEP", "") != "1":
        outcomes.append(run("lab: down", [sys.executable, "-m", "lab", "down"]))
    return outcomes


class Substrate:
    """What Molecule and the lab run on, prepared beside the checks that need none of it: most of that is waiting for mirrors and disks.

    Most scenarios need the hosts' images alone, and begin when those are there.
    """

    HOSTS, ARCHIVES, VLLM = ("docker", "venv", "images"), ("dify", "victorialogs", "search_engine"), ("wheelhouse", "model", "vllm")

    def __init__(self) -> None:
        """Begin."""
        CACHE.mkdir(exist_ok=True)
        pool = ThreadPoolExecutor(max_workers=1)
        self.hosts, self.archives, self.vllm = (pool.submit(self._prepare, steps) for steps in (self.HOSTS, self.ARCHIVES, self.VLLM))
        pool.shutdown(wait=False)

    @staticmethod
    def _prepare(steps: tuple[str, ...]) -> Outcome:
        started = time.monotonic()
        command = [sys.executable, "lab/prepare.py", *steps]
        done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(f"\n::: substrate: {' '.join(command)} (beside the tests)\n{done.stdout}", flush=True)
        return Outcome(f"substrate: {', '.join(steps)}", done.returncode == 0, time.monotonic() - started)


prepared: Substrate | None = None
"""Where everything is run, and so prepared, at once."""


def substrate() -> list[Outcome]:
    """Wait for the hosts' images."""
    global prepared
    prepared = prepared or Substrate()
    return [prepared.hosts.result()]


STAGES: dict[str, Callable[[], list[Outcome]]] = {
    "lint": lint,
    "unit": unit,
    "sanity": sanity,
    "newest": newest,
    "substrate": substrate,
    "standins": standins,
    "molecule": molecule,
    "lab": lab,
}


def everything() -> list[Outcome]:
    """Run all stages; Ansible's sanity tests, newer releases and quiet scenarios in whatever time all others leave the processors."""
    global prepared
    prepared = Substrate()
    with ThreadPoolExecutor(1) as pool:
        # The slowest of the linters keeps one processor busy for minutes.
        tested = pool.submit(unit, captured=True)
        outcomes = lint()
        linted = all(outcome.passed for outcome in outcomes)
        outcomes += tested.result()
        if not linted:
            return outcomes
        outcomes += substrate()
        brought_up: list[Outcome] = []
        compared: list[Outcome] = []
        # Whoever runs beside what measures yields at once.
        prefix = ("chrt", "--idle", "0") if shutil.which("chrt") else ("nice", "-n", "19")
        patient = pool.submit(lambda: sanity(*prefix) + newest(*prefix))
        others = [name for name in scenarios() if name not in QUIET]
        outcomes += molecule(others, lambda: compared.extend(standins()), lambda: brought_up.extend(lab_up(beside=True)))
        # The lab's tests wait half of their time. What is left when they have ended yields to nobody any more.
        passed, turns = Passed(), Turns(QUIET, ())

        def quietly(*modestly: str) -> list[Outcome]:
            return [outcome for name in iter(turns.begin, None) for outcome in Scenario(name, modestly).outcomes(passed)]

        quiet = pool.submit(quietly, *MODEST)
        outcomes += [prepared.archives.result(), *compared, *lab(brought_up), *quietly(), *patient.result(), *quiet.result()]
        return outcomes


def main() -> int:
    """Run the wanted stages and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"any of {', '.join(STAGES)}; none means all")
    wanted = parser.parse_args().stages
    unknown = set(wanted) - set(STAGES)
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    outcomes = [outcome for name, stage in STAGES.items() if name in wanted for outcome in stage()] if wanted else everything()
    print("\n::: Summary")
    for outcome in outcomes:
        print(f"{'passed' if outcome.passed else 'FAILED':7} {outcome.seconds:7.0f} s  {outcome.name}")
        for complaint in outcome.complaints:
            print(f"{'':20}{complaint[:200]}")
    failed = sum(not outcome.passed for outcome in outcomes)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
