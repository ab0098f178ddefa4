"""What roles declare that they can be watched by: its form, its rules, and the pages that alerts point to."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import DeclarationError, declared

PROJECT = Path(__file__).resolve().parents[2]
RULES = sorted(PROJECT.glob("roles/*/monitoring/rules.yml"))
TEXTFILES = PROJECT / "roles/exporters/files/textfiles.py"


def alerts(path: Path) -> list[dict[str, Any]]:
    """Alerting rules of a file; none where it is not there."""
    if not path.is_file():
        return []
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"] if "alert" in rule]


def test_a_declaration_is_put_in_one_form() -> None:
    jobs, textfiles = declared("etcd", {"jobs": {"etcd": {"endpoints": [{"port": "2381"}]}}, "textfiles": {"etcd": {"program": "x.py"}}})
    assert [(job.name, job.role, job.exporter) for job in jobs] == [("etcd", "etcd", None)]
    assert [(end.name, end.address, end.port, end.path, end.tls) for end in jobs[0].endpoints] == [("etcd", "127.0.0.1", 2381, "/metrics", False)]
    assert [(one.name, one.program, one.arguments, one.every) for one in textfiles] == [("etcd", "x.py", (), 0)]


def test_several_endpoints_have_paths_of_their_own() -> None:
    jobs, _ = declared("vllm", {"jobs": {"vllm": {"endpoints": [{"port": 1}, {"port": 2}]}}})
    assert [end.name for end in jobs[0].endpoints] == ["vllm-1", "vllm-2"]


SIGN_OF_LIFE = "Watchdog"
"""Fires for ever, and nobody is called by it."""
NONSENSE: list[tuple[object, str]] = [
    ([], "r: give a mapping of jobs, textfiles"),
    ({"job": {}}, "r.job: unknown; known are jobs, textfiles"),
    ({"jobs": {"A b": {}}}, "r: jobs: 'A b' is no name: use lower-case letters, digits and '_', a letter first"),
    ({"jobs": {"a": {"exporter": {"package": "x"}}}}, "r: jobs.a.exporter.program: required"),
    ({"textfiles": {"a": {}}}, "r: textfiles.a.program: required"),
    ({"textfiles": {"a": {"program": "a.py", "every": "1h"}}}, "r: textfiles.a.every: '1h' is no number of seconds"),
]
BAD_ENDPOINTS = [
    ({}, "port: required"),
    ({"port": "http"}, "port: 'http' is no number"),
    ({"port": 1, "path": "metrics"}, "path: 'metrics' is no path: it begins with / and has no blanks"),
    ({"port": 1, "tls": True}, "server_name: give the name that the server's certificate bears"),
    ({"port": 1, "labels": {"instance": "x"}}, "labels: 'instance' cannot be given; it is set for all, or is no name of a label"),
]
NONSENSE += [({"jobs": {"a": {"endpoints": [endpoint]}}}, f"r: jobs.a.endpoints[1].{told}") for endpoint, told in BAD_ENDPOINTS]


@pytest.mark.parametrize(("document", "told"), NONSENSE)
def test_nonsense_is_refused_by_its_place(document: object, told: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        declared("r", document)
    assert str(refused.value) == told


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.parts[-3])
def test_an_alert_says_what_and_where_to_read_on(path: Path) -> None:
    role = path.parts[-3]
    page = (PROJECT / f"docs/runbooks/{role}.md").read_text()
    anchors = {re.sub(r"[^\w-]", "", title.lower()) for title in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    for rule in alerts(path):
        name = rule["alert"]
        assert rule["labels"]["severity"] in ({"none"} if name == SIGN_OF_LIFE else {"critical", "warning", "info"}), name
        summary = rule["annotations"]["summary"]
        assert summary.endswith("."), name
        assert "\n" not in summary, name
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{role}.md#{name.lower()}", name
        assert name.lower() in anchors, f"docs/runbooks/{role}.md has no {name}"


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.parts[-3])
def test_each_alert_is_seen_to_fire_and_not_to_fire(path: Path) -> None:
    tests = yaml.safe_load((path.parent / "rules_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    names = {rule["alert"] for rule in alerts(path)}
    assert names == fires, names ^ fires
    assert names - {SIGN_OF_LIFE} <= silent, names - silent


def test_runbooks_have_no_page_of_an_alert_that_is_gone() -> None:
    for page in sorted((PROJECT / "docs/runbooks").glob("*.md")):
        role = page.stem
        files = [PROJECT / f"roles/{role}/monitoring/{name}.yml" for name in ("rules", "log_rules")]
        names = {rule["alert"].lower() for path in files for rule in alerts(path)}
        names |= {"hostoffersnometrics"} if role == "prometheus" else set()
        assert {title.lower() for title in re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)} == names, page


FACTS: dict[str, object] = {"distribution": "Debian", "distribution_major_version": "13", "memtotal_mb": 4096, "processor_vcpus": 2}
FACTS |= {"virtualization_role": "guest", "virtualization_type": "docker"}
"""What roles' variables read of a host, in the declarations."""
SHOW = """
- hosts: exporters
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        content: "{{ lookup('sovereign.dify.monitoring_targets', *node.groups) | to_json }}"
        dest: "{{ playbook_dir }}/{{ inventory_hostname }}.json"
        mode: "0600"
      delegate_to: localhost
      connection: local
"""


def test_every_host_of_the_lab_has_declarations_that_fit_together(tmp_path: Path) -> None:
    """Templated as a run would, with the lab's inventory: no two listen at the same port of a host, and no name is given twice."""
    # A copy: what look-ups make of secrets must not come into the lab's own state directory.
    shutil.copytree(PROJECT / "inventories/lab", tmp_path / "inventory", ignore=shutil.ignore_patterns(".state"))
    (tmp_path / "show.yml").write_text(SHOW)
    variables = json.dumps({"ansible_facts": FACTS, "cluster_adopt_state": True})
    command = ["ansible-playbook", f"--inventory={tmp_path / 'inventory'}", f"--extra-vars={variables}", str(tmp_path / "show.yml")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = sorted(tmp_path.glob("*.json"))
    assert len(found) == 8
    for file in found:
        watched = json.loads(file.read_text())
        listening = [
            argument for job in watched["jobs"] if job["exporter"] for argument in job["exporter"]["arguments"] if "listen-address" in argument
        ]
        assert len(set(listening)) == len(listening), (file.stem, listening)
        assert all("127.0.0.1" in argument for argument in listening), (file.stem, listening)
        names = [endpoint["name"] for job in watched["jobs"] for endpoint in job["endpoints"]]
        assert len(set(names)) == len(names), (file.stem, names)


def run_textfiles(tmp_path: Path, every: int = 0, **programs: str) -> Path:
    """Write programs and run them as the timer does; give the directory of the text files."""
    (tmp_path / "programs").mkdir(exist_ok=True)
    (tmp_path / "out").mkdir(exist_ok=True)
    for name, text in programs.items():
        (tmp_path / f"programs/{name}.py").write_text(text)
    (tmp_path / "list.json").write_text(json.dumps([{"name": name, "arguments": ["one"], "every": every} for name in programs]))
    return run_written(tmp_path)


def run_written(tmp_path: Path) -> Path:
    """Run the programs as they are."""
    arguments = [str(tmp_path / "list.json"), str(tmp_path / "programs"), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-IB", str(TEXTFILES), *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


def test_what_programs_print_becomes_their_files_and_a_failure_leaves_none(tmp_path: Path) -> None:
    good, bad = "import sys\nprint('a', sys.argv[1])", "print('half', flush=True)\nraise SystemExit('no')"
    out = run_textfiles(tmp_path, good=good, bad=bad)
    assert (out / "good.prom").read_text() == "a one\n"
    assert not (out / "bad.prom").exists()
    told = (out / "sovereign_textfiles.prom").read_text()
    assert 'sovereign_textfile_success{textfile="good"} 1' in told
    assert 'sovereign_textfile_success{textfile="bad"} 0' in told
    # What failed at a later run leaves nothing of the former one; what is declared no more goes.
    out = run_textfiles(tmp_path, good="raise ValueError")
    assert sorted(path.name for path in out.glob("*.prom")) == ["sovereign_textfiles.prom"]


def test_what_was_printed_is_good_for_as_long_as_is_declared(tmp_path: Path) -> None:
    counts = f"p = {str(tmp_path / 'count')!r}\nopen(p, 'a').write('x')\nprint('runs', len(open(p).read()))"
    out = run_textfiles(tmp_path, every=3600, counts=counts)
    told = (out / "sovereign_textfiles.prom").read_text().splitlines()

    def printed(ago: float, program_ago: float = 7200) -> str:
        """Run again, where the file and the program are so old in seconds."""
        now = time.time()
        os.utime(out / "counts.prom", (now - ago, now - ago))
        for source in (tmp_path / "programs/counts.py", tmp_path / "list.json"):
            os.utime(source, (now - program_ago, now - program_ago))
        run_written(tmp_path)
        return (out / "counts.prom").read_text()

    assert printed(1800) == "runs 1\n"
    again = (out / "sovereign_textfiles.prom").read_text().splitlines()
    assert again[:-1] == told[:-1], "it is told of as before"
    assert printed(3595) == "runs 2\n", "old"
    assert printed(1800, program_ago=900) == "runs 3\n", "of another program"
    assert printed(-60) == "runs 4\n", "of a clock that was wrong"


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/smartmon.prom").write_text("x 1\n")
    run_textfiles(tmp_path, good="print('a 1')")
    assert (run_textfiles(tmp_path) / "smartmon.prom").exists()


def test_a_program_that_hangs_or_floods_is_ended_with_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    hangs = f"import os, subprocess\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(['sleep', '900']).pid))\nos.wait()"
    out = run_textfiles(tmp_path, hangs=hangs, floods="while True: print('x' * 4096)", good="print('a 1')")
    assert (out / "good.prom").exists()
    assert not (out / "hangs.prom").exists()
    assert not (out / "floods.prom").exists()
    assert time.monotonic() - started < 60
    pid = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or ") Z " in state.read_text(), "its child is still there"
