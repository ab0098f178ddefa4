"""What has passed is run again as soon as anything that it consists of is another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import remembered

READ = ("molecule/web/converge.yml", "roles/web/tasks/main.yml", "roles/pki/tasks/main.yml", "plugins/modules/one.py", "roles/web/templates/")


def write(root: Path, files: dict[str, str]) -> None:
    """Write files that are older than any run of the test."""
    long_ago = time.time() - 60
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        os.utime(root / name, (long_ago, long_ago))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project of two roles, of which one calls the other, and a scenario of the first."""
    files = {
        "molecule/web/converge.yml": "roles: [sovereign.dify.web]",
        "molecule/web/tests/helper.txt": "help",
        "molecule/shared/create.yml": "create",
        "lab/image/Dockerfile": "image",
        "roles/web/tasks/main.yml": "name: sovereign.dify.pki\nsovereign.dify.one:",
        "roles/web/templates/one.j2": "one",
        "roles/web/README.md": "words",
        "roles/pki/tasks/main.yml": "issue",
        "roles/other/tasks/main.yml": "other",
        "plugins/modules/one.py": "one",
        "playbooks/site.yml": "site",
    }
    write(tmp_path, files)
    monkeypatch.setattr(remembered, "PROJECT", tmp_path)
    monkeypatch.delenv("TEST_AGAIN", raising=False)
    return tmp_path


@pytest.fixture
def record(project: Path) -> Path:
    """Write what was read while the scenario ran."""
    (project / "reads").write_text("".join(f"{name}\n" for name in (*READ, *READ[:2], "plugins/modules/", "roles/web/README.md", "gone.yml")))
    return project / "reads"


@pytest.fixture
def passed(project: Path, record: Path) -> remembered.Passed:
    found = remembered.Passed(project / "passed")
    found.note("web", record, time.time())
    return found


def test_what_has_passed_as_it_is_is_remembered(passed: remembered.Passed) -> None:
    assert passed.when("web").startswith("20")
    assert passed.when("unknown") == ""


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in READ if not name.endswith("/")),
        *(
            "molecule/web/tests/helper.txt",
            "molecule/web/tests/new.py",
            "molecule/shared/create.yml",
            "molecule/shared/new.yml",
            "lab/image/Dockerfile",
        ),
        *("roles/web/templates/new.j2", "gone.yml"),
    ],
)
def test_any_of_its_files_makes_it_run_again(project: Path, passed: remembered.Passed, name: str) -> None:
    (project / name).write_text("changed")
    assert passed.when("web") == ""


@pytest.mark.parametrize("name", ["molecule/web/converge.yml", "roles/pki/tasks/main.yml", "molecule/web/tests/helper.txt"])
def test_a_file_that_is_gone_makes_it_run_again(project: Path, passed: remembered.Passed, name: str) -> None:
    (project / name).unlink()
    assert passed.when("web") == ""


def test_what_it_has_not_read_does_not(project: Path, passed: remembered.Passed) -> None:
    for name in ("roles/other/tasks/main.yml", "roles/web/README.md", "playbooks/site.yml", "plugins/modules/two.py"):
        (project / name).write_text("changed")
    assert passed.when("web")


def test_a_plugin_that_was_loaded_and_is_named_by_nobody_does_not(project: Path, record: Path) -> None:
    root = "ansible_collections.sovereign.dify.plugins"
    files = {
        "plugins/filter/named.py": f"from {root}.module_utils.shared import one\nfrom {root}.module_utils import own",
        "plugins/filter/other.py": f"from {root}.module_utils.shared import one\nfrom {root}.module_utils.others.part import two\nimport json",
        "plugins/filter/by_lookup.py": "",
        "plugins/lookup/secret.py": "USES = '{{ x | sovereign.dify.by_lookup }}'",
        "plugins/lookup/nobodys.py": f"from {root}.module_utils import far\nEXAMPLE = '{{{{ lookup(\"sovereign.dify.nobodys\") }}}}'",
        "plugins/module_utils/far.py": "",
        "plugins/action/one.py": "",
        "plugins/action/nobodys_too.py": "",
        "plugins/module_utils/shared.py": "",
        "plugins/module_utils/own.py": "from .shared import one",
        "plugins/module_utils/others/__init__.py": "",
        "plugins/module_utils/others/part.py": "from ..copied import three",
        "plugins/module_utils/copied.py": "",
        "roles/web/templates/one.j2": "{{ x | sovereign.dify.named }} {{ lookup('sovereign.dify.secret') }} {# plugins/module_utils/copied.py #}",
    }
    write(project, files)
    record.write_text("".join(f"{name}\n" for name in (*READ, *files)))
    found = remembered.Passed(project / "passed")
    found.note("web", record, time.time())
    rerun = set()
    for name, text in files.items():
        (project / name).write_text(f"{text}\n")
        rerun |= set() if found.when("web") else {name}
        (project / name).write_text(text)
    assert set(files) - rerun == {
        "plugins/filter/other.py",
        "plugins/module_utils/others/__init__.py",
        "plugins/module_utils/others/part.py",
        "plugins/lookup/nobodys.py",
        "plugins/module_utils/far.py",
        "plugins/action/nobodys_too.py",
    }


def test_a_change_while_it_ran_is_not_remembered(project: Path, record: Path) -> None:
    began = time.time()
    (project / "roles/web/tasks/main.yml").write_text("changed")
    found = remembered.Passed(project / "passed")
    found.note("web", record, began - 1)
    assert found.when("web") == ""


@pytest.mark.parametrize("read", [None, "", "roles/web/tasks/main.yml\n"])
def test_nothing_is_remembered_when_nothing_was_noted(project: Path, read: str | None) -> None:
    record = project / "reads"
    if read is not None:
        record.write_text(read)
    found = remembered.Passed(project / "passed")
    found.note("web", record, time.time())
    assert found.when("web") == ""


@pytest.mark.parametrize("text", ["", "{", "12", "0123456789abcdef"])
def test_what_cannot_be_read_is_not_remembered(passed: remembered.Passed, text: str) -> None:
    (passed.directory / "web").write_text(text)
    assert passed.when("web") == ""


def test_after_a_week_or_on_request_it_runs_again(passed: remembered.Passed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_AGAIN", "1")
    assert passed.when("web") == ""
    monkeypatch.delenv("TEST_AGAIN")
    assert passed.when("web")
    long_ago = time.time() - remembered.KEPT_SECONDS - 60
    os.utime(passed.directory / "web", (long_ago, long_ago))
    assert passed.when("web") == ""


PROGRAM = """
import os, pathlib, subprocess, sys
sys.path.insert(0, os.environ["PACKAGES"])
import lab_reads
pathlib.Path("roles/web/tasks/main.yml").read_text()
open(b"link/pki/tasks/main.yml").close()
os.listdir("roles/web/templates")
sys.path.insert(0, "plugins/modules")
import one
subprocess.run(["cat", "playbooks/site.yml"], stdout=subprocess.DEVNULL)
lab_reads.note(["roles/other/tasks/main.yml"])
for pid in [os.fork()]:
    if not pid:
        open("molecule/shared/create.yml").close()
        os._exit(0)
    os.wait()
open("/etc/hostname").close()
"""


def test_everything_is_noted_that_a_program_reads_of_the_project(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (project / "link").symlink_to("roles")
    (project / "plugins/modules/one.py").write_text("ONE = 1")
    record = tmp_path_factory.mktemp("record") / "reads"
    packages = Path(__file__).resolve().parents[2] / "lab/substrate"
    environment = {**os.environ, "PACKAGES": str(packages), "LAB_READS": str(record), "LAB_READS_BELOW": str(project)}
    # The second time Python reads what it has compiled.
    for _ in range(2):
        record.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-I", "-S", "-c", PROGRAM], cwd=project, env=environment, check=True)
        noted = set(record.read_text().splitlines())
        assert noted >= {
            *("roles/web/tasks/main.yml", "roles/pki/tasks/main.yml", "roles/web/templates/", "plugins/modules/one.py", "playbooks/site.yml"),
            *("roles/other/tasks/main.yml", "molecule/shared/create.yml"),
        }
        assert not any("hostname" in name for name in noted)


def test_without_being_asked_nothing_is_noted() -> None:
    packages = Path(__file__).resolve().parents[2] / "lab/substrate"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAB_READS")} | {"PYTHONPATH": str(packages)}
    asked = [sys.executable, "-S", "-c", "import lab_reads; print(lab_reads.noted)"]
    done = subprocess.run(asked, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"


def test_what_is_no_scenario_is_remembered_by_all_of_its_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(remembered.WHOLE, "standins", ("tests/standins",))
    write(project, {"tests/standins/test_one.py": "one"})
    found = remembered.Passed(project / "passed")
    assert not found.when("standins")
    found.note("standins", None, time.time())
    assert found.when("standins")
    write(project, {"roles/web/tasks/main.yml": "another"})
    assert found.when("standins")
    write(project, {"tests/standins/test_one.py": "two"})
    assert not found.when("standins")


def test_what_is_made_for_the_hosts_of_others_does_not(project: Path, record: Path) -> None:
    write(project, {"lab/substrate/images.py": "images", "lab/substrate/victorialogs.py": "store", "lab/substrate/wheelhouse.py": "wheels"})
    found = remembered.Passed(project / "passed")
    for scenario in ("web", "log_store", "vllm"):
        write(project, {f"molecule/{scenario}/converge.yml": scenario})
        record.write_text(f"molecule/{scenario}/converge.yml\n")
        found.note(scenario, record, time.time())
    rerun = {}
    for name in ("lab/substrate/victorialogs.py", "lab/substrate/wheelhouse.py", "lab/substrate/images.py"):
        text = (project / name).read_text()
        (project / name).write_text("changed")
        rerun[name] = {scenario for scenario in ("web", "log_store", "vllm") if not found.when(scenario)}
        (project / name).write_text(text)
    assert list(rerun.values()) == [{"log_store"}, {"vllm"}, {"web", "log_store", "vllm"}]


def test_one_whose_playbook_is_a_link_is_remembered(project: Path, record: Path) -> None:
    (project / "molecule/linked").mkdir()
    (project / "molecule/linked/converge.yml").symlink_to("../web/converge.yml")
    found = remembered.Passed(project / "passed")
    found.note("linked", record, time.time())
    assert found.when("linked")
