"""Show that the collection works under newer releases of Ansible than the pinned one, under which everything else is tested.

Each release of ``tests/tools/newest.txt`` has an environment of its own in the lab's cache, made once. Under each, all playbooks and all files of
tasks and of handlers are parsed and the lab's inventory is read; under the last, those unit tests run that use Ansible itself. The pinned release is
the measure: a warning that it does not print is a fault, and so is an inventory that differs from its own.

None of that needs a host. That the roles do on hosts what they should is shown under the pinned release; under the newest, by one scenario of
Molecule and by site.yml over the lab.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.substrate import venv
from lab.substrate.steps import CACHE, StepError, digest, lock, run, say

PROJECT = Path(__file__).resolve().parent.parent
LOCK = PROJECT / "tests/tools/newest.txt"
PLACE = CACHE / "newest"

NEEDED = ("ansible-runner", "cryptography", "jsonschema", "netaddr", "pytest", "pytest-testinfra")
"""What the plugins and their tests import, beside Ansible; in the releases of requirements-dev.txt."""

MINORS = (13, 14, 12)
"""Releases of Python 3 under which Ansible's newest run, that of Debian 13 first."""

USES_ANSIBLE = re.compile(
    r"(?:from|import) ansible\b|ansible-(?:playbook|inventory|runner)|from tests\.unit(?:\.test_|\.role_variables| import role_variables)"
)
"""What stands in a file of tests that load Ansible's own code, start its programs, or take the helpers of those that do."""

OF_THE_WORKSHOP = ("test_cut.py", "test_lab_ansible.py", "test_dify_capacity.py")
"""Files of tests of what no user has, or of what reckons for a long time without Ansible."""

SLOW = (
    # Each starts a program of Ansible several times, and others remain that take the same way.
    "test_a_mistake_is_named",
    "test_two_platforms_in_one_run_are_refused",
    "test_a_copy_beside_the_cluster_file_is_refused",
    "test_flushing_the_cache_of_one_leaves_that_of_the_other",
    "(test_mistakes_are_all_that_is_shown and directory)",
    "(test_data_of_a_cluster_that_patroni_has_not_made and True)",
)
"""Tests that are left out, as pytest's ``-k`` names them."""

SCENARIO = "pgbouncer"
"""The scenario of Molecule that runs under the newest release, too: etcd, PostgreSQL and who comes to it, in a few minutes."""

NOT_OURS = {
    r"^\[WARNING\]: Module remote_tmp \S+ did not exist": "Ansible says so once of every host that it meets for the first time.",
    r"^\[WARNING\]: Deprecation warnings can be disabled": "It comes with the first deprecation, which counts by itself.",
}
"""Warnings of newer releases alone that are no faults of this project, as patterns, and why not."""

WARNING = re.compile(r"^\d{4}-\d\d-\d\d [^|\n]*\| (\[(?:DEPRECATION )?WARNING\]: .*?)(?=\n\n|\n\d{4}-\d\d-\d\d |\Z)", re.DOTALL | re.MULTILINE)
"""A warning as it stands in Ansible's log, where deprecations are information; an excerpt of what it is about may follow behind an empty line."""


@dataclass(frozen=True)
class Check:
    """How one check ended.

    Attributes:
        name: The release, and what was checked.
        seconds: Wall time.
        faults: What was wrong, a line each.
        said: What it printed, as far as somebody may want to read it.
        left_out: Whether nothing could be checked; the name says why.
    """

    name: str
    seconds: float = 0
    faults: tuple[str, ...] = ()
    said: str = ""
    left_out: bool = False


@dataclass(frozen=True)
class Release:
    """A release of Ansible.

    Attributes:
        core: Version of ansible-core.
        requirement: Its lines of the lock file.
        package: Those of the package `ansible`, of which the collections are taken.
    """

    core: str
    requirement: str
    package: str


@dataclass(frozen=True)
class Environment:
    """Where a release of Ansible is installed.

    Attributes:
        core: Version of ansible-core.
        programs: The directory of its programs.
        compiled: Where its Python keeps what it compiles; beside the sources if it is nowhere else.
    """

    core: str
    programs: Path
    compiled: Path | None = None


@dataclass(frozen=True)
class Done:
    """How a program ended.

    Attributes:
        code: Its exit code.
        output: Its standard output.
        errors: Its standard error.
        warnings: What Ansible has warned of in it and in all programs that it has started, each a line.
        seconds: Wall time.
    """

    code: int
    output: str
    errors: str
    warnings: tuple[str, ...]
    seconds: float


def entries(text: str) -> Iterator[tuple[str, str, str]]:
    """Give name, version and all lines of each entry of a lock file.

    Args:
        text: The lock file.
    """
    for match in re.finditer(r"^([a-z][\w.-]*)==(\S+).*?(?=^[a-z#]|\Z)", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2], match[0]


def releases() -> list[Release]:
    """Give the releases that the lock file names."""
    named = list(entries(LOCK.read_text(encoding="utf-8")))
    return [Release(version, core, package) for (_, version, core), (_, _, package) in zip(named[::2], named[1::2], strict=True)]


def newer_python() -> tuple[Path, str] | None:
    """Find a Python that Ansible's newest releases run under, and what it says of its version. None is downloaded."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    managed = Path("~/.local/share/uv/python").expanduser()
    for minor in MINORS:
        name = f"python3.{minor}"
        found = [Path(sys.base_prefix, "bin", name), Path("/usr/bin", name), *map(Path, filter(None, [shutil.which(name)]))]
        found += [*pyenv.glob(f"versions/3.{minor}.*/bin/{name}"), *managed.glob(f"cpython-3.{minor}.*/bin/{name}")]
        for path in filter(Path.exists, found):
            try:
                version = run([path, "-c", "import sys, venv; print(sys.version)"], timeout=60).strip()
            except StepError:
                continue  # such as a program of pyenv's that only says which Pythons there are
            if version.startswith(f"3.{minor}."):
                return path, version
    return None


def made(release: Release, base: Path, version: str, prefix: Sequence[str]) -> Environment:
    """Give a release's environment; make it if it is not there as it should be.

    Args:
        release: The release.
        base: The Python to make it of.
        version: What that says of its version.
        prefix: Words before each command.
    """
    directory = PLACE / f"ansible-core-{release.core}"
    environment = Environment(release.core, directory / "bin", directory / "compiled")
    collections = tuple(yaml.safe_load((PROJECT / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"])
    others = [entry for entry in entries(venv.LOCK.read_text(encoding="utf-8")) if entry[0] not in ("ansible", "ansible-core")]
    pinned = "".join(lines for _, _, lines in others)
    stamp, wanted = directory / ".stamp", digest(release.requirement, release.package, *NEEDED, *collections, pinned, str(base), version)
    if stamp.is_file() and stamp.read_text() == wanted:
        return environment
    say(f"making {directory} with Python {version.split()[0]} ({base})")
    # Its stamp is written last: an interrupted run is taken up by the next one.
    shutil.rmtree(directory, ignore_errors=True)
    uv = [*prefix, str(venv.VENV / "bin/uv")]
    run([*uv, "venv", "--quiet", "--no-python-downloads", "--python", base, directory], env=venv.uv_environment())
    (directory / "pinned.txt").write_text(pinned, encoding="utf-8")
    install = ["pip", "install", "--require-hashes", "--only-binary=:all:", "--constraints", str(directory / "pinned.txt"), "--requirements", "-"]
    wants = release.requirement + "".join(lines for name, _, lines in others if name in NEEDED)
    run([*uv, *install, "--python", directory / "bin/python"], env=venv.uv_environment() | {"VIRTUAL_ENV": str(directory)}, stdin=wants)
    (packages,) = (directory / "lib").glob("python3*/site-packages")
    # The package holds a hundred collections, half a gigabyte: all but ours stay in it.
    with tempfile.TemporaryDirectory(prefix="newest-") as temporary:
        options = ["--no-deps", "--only-binary=:all:", "--python-version", version.split()[0], "--no-cache-dir", "--dest", temporary]
        download = [str(venv.python()), "-m", "pip", "download", "--quiet", "--require-hashes", *options, "--requirement", "/dev/stdin"]
        run([*prefix, *download], stdin=release.package)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            below = tuple(f"ansible_collections/{name.replace('.', '/')}/" for name in collections)
            archive.extractall(packages, [name for name in archive.namelist() if name.startswith(below)])
    absent = [name for name in collections if not (packages / "ansible_collections" / name.replace(".", "/")).is_dir()]
    if absent:
        msg = f"the package has no {', '.join(absent)}: {release.package.split()[0]}"
        raise StepError(msg)
    stamp.write_text(wanted)
    return environment


def under(environment: Environment, work: Path, *command: str, **variables: str) -> Done:
    """Run a program in a release's environment, with this project's settings and nothing else of Ansible's.

    Args:
        environment: The release's environment.
        work: A directory for what Ansible keeps. Of a former program in it the warnings count, too.
        *command: The program and its arguments.
        **variables: Further environment variables.
    """
    work.mkdir(exist_ok=True)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    own = {
        "PATH": f"{environment.programs}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_HOME": str(work / "home"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(work / "facts"),
        "ANSIBLE_LOG_PATH": str(work / "log"),
        "ANSIBLE_NOCOLOR": "1",
    }
    if environment.compiled:
        outside.pop("PYTHONDONTWRITEBYTECODE", None)
        own["PYTHONPYCACHEPREFIX"] = str(environment.compiled)
    started = time.monotonic()
    done = subprocess.run(command, cwd=PROJECT, env=outside | own | variables, capture_output=True, text=True, errors="replace", check=False)
    seconds = time.monotonic() - started
    log = (work / "log").read_text(encoding="utf-8", errors="replace") if (work / "log").is_file() else ""
    # Each once, in the order in which they came.
    warnings = dict.fromkeys(" ".join(match[1].split()) for match in WARNING.finditer(log))
    return Done(done.returncode, done.stdout, done.stderr, tuple(warnings), seconds)


def playbook_of_all_tasks() -> str:
    """Write a playbook of all files of tasks and of handlers, which a run reads only when it comes to what includes them."""
    patterns = ("roles/*/tasks/*.yml", "roles/*/handlers/*.yml", "playbooks/*/tasks/*.yml")
    tasks = [{"ansible.builtin.import_tasks": str(path)} for pattern in patterns for path in sorted(PROJECT.glob(pattern))]
    return yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}], sort_keys=False)


def parse(environment: Environment, work: Path, prefix: Sequence[str]) -> Done:
    """Have a release parse all playbooks and all files of tasks, in one process."""
    everything = work.with_name(f"{work.name}.yml")
    everything.write_text(playbook_of_all_tasks(), encoding="utf-8")
    playbooks = [str(path.relative_to(PROJECT)) for pattern in ("*.yml", "*/*.yml") for path in sorted(PROJECT.glob(f"playbooks/{pattern}"))]
    return under(environment, work, *prefix, "ansible-playbook", "--syntax-check", "--inventory=inventories/lab", *playbooks, str(everything))


def read_inventory(environment: Environment, work: Path, prefix: Sequence[str]) -> Done:
    """Have a release read the lab's inventory."""
    return under(environment, work, *prefix, "ansible-inventory", "--inventory=inventories/lab", "--list")


def test(environment: Environment, work: Path, prefix: Sequence[str]) -> Done:
    """Run the unit tests that use Ansible under a release."""
    files = sorted(path for path in (PROJECT / "tests/unit").rglob("test_*.py") if path.name not in OF_THE_WORKSHOP)
    names = [str(path.relative_to(PROJECT)) for path in files if USES_ANSIBLE.search(path.read_text(encoding="utf-8"))]
    options = ["--confcutdir=tests/unit", "-p", "no:cacheprovider", "--quiet", "-k", f"not ({' or '.join(SLOW)})"]
    return under(environment, work, *prefix, "python", "-m", "pytest", *options, *names)


def failure(done: Done) -> list[str]:
    """Give the errors that a program of Ansible's told when it failed, with their places; or what it said last."""
    said = [line.strip() for line in f"{done.output}\n{done.errors}".splitlines() if line.strip()]
    errors = [line for line in said if line.startswith(("[ERROR]", "Origin: "))]
    return [f"exit code {done.code}", *(errors or said[-5:])] if done.code else []


def ours(warnings: Sequence[str]) -> list[str]:
    """Leave out the warnings that nothing of this project can cause."""
    return [warning for warning in warnings if not any(re.search(pattern, warning) for pattern in NOT_OURS)]


def unexpected(done: Done) -> list[str]:
    """Give why a run of Ansible failed, and what it warned of."""
    return failure(done) + ours(done.warnings)


def compared(done: Done, pinned: Done, release: str) -> list[str]:
    """Give what was wrong with a program of Ansible, by what the same did under the pinned release.

    Args:
        done: How it ended.
        pinned: How it ended under the pinned release.
        release: The version of that.
    """
    faults = failure(done) or [f"under {release}: {fault}" for fault in failure(pinned)]
    return faults + ours([warning for warning in done.warnings if warning not in pinned.warnings])


def differences(output: str, pinned: str) -> list[str]:
    """Give hosts and groups of which an inventory has not what it has under the pinned release.

    Args:
        output: What ``ansible-inventory`` has printed.
        pinned: What it has printed under the pinned release.
    """
    try:
        here, there = json.loads(output), json.loads(pinned)
    except ValueError:
        return ["the inventory is not JSON"]
    parts = [(here.pop("_meta", {}).get("hostvars", {}), there.pop("_meta", {}).get("hostvars", {})), (here, there)]
    return [f"not as under the pinned release: {name}" for one, two in parts for name in sorted({*one, *two}) if one.get(name) != two.get(name)]


def failed_tests(done: Done) -> list[str]:
    """Give the tests that failed, and what was warned of: tests cause warnings on purpose, but not such of what will be gone in later releases."""
    failed = re.findall(r"^(?:FAILED|ERROR) .*", done.output, re.MULTILINE) if done.code else []
    deprecated = [warning for warning in done.warnings if warning.startswith("[DEPRECATION")]
    of_python = re.findall(rf"^\s+{re.escape(str(PROJECT))}/(?!\.venv).*Warning: .*", done.output, re.MULTILINE)
    return (failed or failure(done)) + ours([*deprecated, *(line.strip() for line in of_python)])


def lacking() -> Check:
    """Say that nothing can be checked here, and what would change that."""
    lacks = f"no Python from 3.{min(MINORS)} to 3.{max(MINORS)} here, which newer Ansible needs"
    return Check(f"newer releases LEFT OUT: {lacks}; '.venv/bin/uv python install 3.{MINORS[0]}' gets one", left_out=True)


def scenario(name: str) -> Check:
    """Run a scenario of Molecule under the newest release; its hosts stay.

    They are made under the pinned release: that takes collections of the workshop, which no user has and no newer release's environment.

    Args:
        name: The scenario's name.

    Returns:
        How it ended. Where it cannot be run, why not.
    """
    found = newer_python()
    if not found:
        return lacking()
    release, started = releases()[-1], time.monotonic()
    called = f"ansible-core {release.core}"
    try:
        with lock("newest"):
            newest = made(release, *found, ())
    except StepError as error:
        return Check(called, time.monotonic() - started, tuple(str(error).splitlines()[-5:]), str(error))
    pinned = Environment(venv_release(), Path(sys.executable).parent)
    steps = ((pinned, "create", failure), (newest, "converge", unexpected), (newest, "idempotence", unexpected), (newest, "verify", failed_tests))
    faults, said = list[str](), ""
    with tempfile.TemporaryDirectory(prefix="newest-") as temporary:
        for where, action, judged in steps:
            # One directory for all, so that Molecule knows what it has done; but what the pinned release warns of is not the newest's.
            variables = {"MOLECULE_COMMAND_BORDERS": "0"} | ({"ANSIBLE_LOG_PATH": f"{temporary}/pinned.log"} if where is pinned else {})
            done = under(where, Path(temporary, "run"), "molecule", action, "--scenario-name", name, **variables)
            said += done.output + done.errors
            faults = judged(done)
            if faults:
                break
    return Check(called, time.monotonic() - started, tuple(faults), said[-20000:] if faults else "")


def checks(*prefix: str) -> list[Check]:
    """Check the collection under each newer release.

    Args:
        *prefix: Words before each command.

    Returns:
        How each check ended. Where nothing can be checked, one says why.
    """
    found = newer_python()
    if not found:
        return [lacking()]
    started = time.monotonic()
    try:
        with lock("newest"):
            environments = [made(release, *found, prefix) for release in releases()]
    except StepError as error:
        return [Check("environments", time.monotonic() - started, tuple(str(error).splitlines()[-5:]), str(error))]
    pinned = Environment(venv_release(), Path(sys.executable).parent)
    with tempfile.TemporaryDirectory(prefix="newest-") as temporary, ThreadPoolExecutor(2) as pool:
        # The longest first, so that both end together.
        # Between the pinned release, which runs everything, and the last one, these show nothing that neither shows.
        tested = pool.submit(test, environments[-1], Path(temporary, "test"), prefix)
        parsed = [pool.submit(parse, each, Path(temporary, f"{each.core}-parse"), prefix) for each in (*environments, pinned)]
        read = [pool.submit(read_inventory, each, Path(temporary, f"{each.core}-read"), prefix) for each in (*environments, pinned)]
        results = []
        for number, each in enumerate(environments):
            name = f"ansible-core {each.core}"
            done, measure = parsed[number].result(), parsed[-1].result()
            results.append(Check(f"{name}: playbooks and tasks", done.seconds, tuple(compared(done, measure, pinned.core)), done.errors))
            done, measure = read[number].result(), read[-1].result()
            faults = compared(done, measure, pinned.core) or differences(done.output, measure.output)
            results.append(Check(f"{name}: inventory", done.seconds, tuple(faults), done.errors))
        done = tested.result()
        results.append(Check(f"ansible-core {environments[-1].core}: unit tests", done.seconds, tuple(failed_tests(done)), done.output + done.errors))
    return results


def venv_release() -> str:
    """Give the pinned version of ansible-core."""
    return next(version for name, version, _ in entries(venv.LOCK.read_text(encoding="utf-8")) if name == "ansible-core")
