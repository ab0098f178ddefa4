"""Instances of a template unit, against a systemd that is made of a dictionary."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.unit_instances import InstanceError, Plan, Template

UNIT = re.compile(r"vllm@(.+)\.service")


class Systemd:
    """Remembers what it was told; ``after`` is what each started unit becomes when time passes."""

    def __init__(self) -> None:
        """Start with no unit at all."""
        self.units: dict[str, dict[str, str]] = {}
        self.said: list[str] = []
        self.after: dict[str, dict[str, str]] = {}
        self.on_start: Callable[[str], None] = lambda _: None

    def set(self, name: str, active: str, sub: str = "running", enabled: bool = True, **more: str) -> None:
        """Put a unit into a state."""
        base = {"ActiveState": active, "SubState": sub, "Result": "success", "NRestarts": "0", "NeedDaemonReload": "no"}
        self.units[name] = {**base, "UnitFileState": "enabled" if enabled else "disabled", **more}

    def run(self, command: list[str]) -> str:
        """Answer what systemctl and journalctl would."""
        names = [match[1] for word in command if (match := UNIT.fullmatch(word)) and match[1] != "*"]
        verb = command[1]
        if command[0] == "journalctl":
            return "ValueError: no such model\n"
        if verb == "show":
            for name in names:
                if name not in self.units:
                    self.set(name, "inactive", "dead", enabled=False)
            return "\n\n".join("\n".join([f"Id=vllm@{name}.service", *(f"{k}={v}" for k, v in self.units[name].items())]) for name in names) + "\n"
        if verb == "list-units":
            return "".join(
                f"vllm@{name}.service loaded active running A model\n" for name, unit in self.units.items() if unit["ActiveState"] != "inactive"
            )
        self.said.append(" ".join(word for word in command[1:] if word not in {"--", "--quiet"}).replace(".service", ""))
        for name in names:
            # Seen with systemd 252: a start leaves a unit that waits for its next attempt waiting. And a job is begun some time after it is queued.
            if verb == "restart" or (verb == "start" and not self.units[name]["SubState"].startswith("auto-restart")):
                self.units[name]["Job"] = "7"
                self.on_start(name)
        return ""

    def sleep(self, _: float) -> None:
        """Let time pass."""
        for name, unit in self.units.items():
            if unit.pop("Job", ""):
                unit.update({"ActiveState": "activating", "SubState": "start-post"})
            elif unit["ActiveState"] == "activating":
                unit.update(self.after.get(name, {"ActiveState": "active", "SubState": "running"}))


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


@pytest.fixture
def template(tmp_path: Path, systemd: Systemd) -> Template:
    for folder in ("etc", "run", "links/multi-user.target.wants"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/vllm@.service").write_text("unit")
    files = (str(tmp_path / "etc/vllm@.service"), str(tmp_path / "etc/%i.yaml"))
    return Template("vllm", files, str(tmp_path / "run/%i"), systemd.run, systemd.sleep, tmp_path / "links")


def configure(template: Template, name: str, text: str = "present", started_with: str | None = None) -> None:
    Path(template.files[1].replace("%i", name)).write_text(text)
    if started_with is not None:
        kept = Path(template.started_with.replace("%i", name))
        kept.mkdir(exist_ok=True)
        (kept / "vllm@.service").write_text("unit")
        (kept / f"{name}.yaml").write_text(started_with)


def test_what_runs_as_declared_is_left_alone(template: Template, systemd: Systemd) -> None:
    systemd.set("a", "active")
    configure(template, "a", started_with="present")
    plan = template.plan(["a"])
    template.apply(plan, ["a"], timeout=5, restart=True)
    assert plan == Plan()
    assert systemd.said == []


def test_all_that_do_not_run_are_started_at_once(template: Template, systemd: Systemd) -> None:
    systemd.set("b", "failed", enabled=True)
    configure(template, "a")
    configure(template, "b")
    template.apply(template.plan(["a", "b"]), ["a", "b"], timeout=5, restart=False)
    assert systemd.said == ["daemon-reload", "enable vllm@a", "reset-failed vllm@*", "restart --no-block vllm@a vllm@b"]


def test_nobody_is_waited_for_where_others_have_to_be_started_first(template: Template, systemd: Systemd) -> None:
    configure(template, "a")
    systemd.after["a"] = {"ActiveState": "activating", "SubState": "start-post"}
    template.apply(template.plan(["a"]), ["a"], timeout=None)
    assert systemd.said[-1] == "restart --no-block vllm@a"
    # What comes up is not started again; it is waited for.
    with pytest.raises(InstanceError, match=r"vllm@a\.service did not come up in 0 s"):
        template.apply(template.plan(["a"]), ["a"], timeout=0)


def test_stale_instances_are_reported_and_restarted_one_after_another_only_if_wanted(template: Template, systemd: Systemd) -> None:
    for name in ("a", "b"):
        systemd.set(name, "active")
        configure(template, name, started_with="older")
    plan = template.plan(["a", "b"])
    assert plan.stale == ("a", "b")
    template.apply(plan, ["a", "b"], timeout=5, restart=False)
    assert systemd.said == []

    def others_serve(started: str) -> None:
        assert all(unit["ActiveState"] == "active" for name, unit in systemd.units.items() if name != started)

    systemd.on_start = others_serve
    template.apply(plan, ["a", "b"], timeout=5, restart=True)
    assert systemd.said == ["restart --no-block vllm@a", "restart --no-block vllm@b"]


def test_stale_instances_that_may_are_restarted_at_once_after_the_others(template: Template, systemd: Systemd) -> None:
    for name in ("a", "b", "c"):
        systemd.set(name, "active")
        configure(template, name, started_with="older")
    template.apply(template.plan(["a", "b", "c"]), ["a", "b", "c"], timeout=5, restart=True, together=[["a", "c", "not stale"]])
    assert systemd.said == ["restart --no-block vllm@b", "restart --no-block vllm@a vllm@c"]


def test_an_instance_that_keeps_no_copy_is_stale(template: Template, systemd: Systemd) -> None:
    systemd.set("a", "active")
    configure(template, "a")
    assert template.plan(["a"]).stale == ("a",)


def test_one_that_comes_up_with_older_files_begins_again_and_another_is_waited_for(template: Template, systemd: Systemd) -> None:
    for name, files in (("a", "older"), ("b", "present")):
        systemd.set(name, "activating", "start-post")
        configure(template, name, started_with=files)
    template.apply(template.plan(["a", "b"]), ["a", "b"], timeout=5, restart=False)
    assert systemd.said == ["daemon-reload", "restart --no-block vllm@a"]


def test_what_is_not_declared_is_stopped_and_its_files_are_removed(template: Template, systemd: Systemd, tmp_path: Path) -> None:
    systemd.set("running", "active")
    configure(template, "configured")
    (tmp_path / "links/multi-user.target.wants/vllm@linked.service").touch()
    plan = template.plan([])
    assert plan.remove == ("configured", "linked", "running")
    template.apply(plan, [], timeout=5, restart=False)
    assert [said for said in systemd.said if said.startswith("disable")] == [f"disable --now vllm@{name}" for name in plan.remove]
    assert not (tmp_path / "etc/configured.yaml").exists()
    assert (tmp_path / "etc/vllm@.service").exists()


@pytest.mark.parametrize(
    "end",
    [
        {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"},
        {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code"},
        {"ActiveState": "activating", "SubState": "auto-restart-queued", "Result": "exit-code"},
        {"ActiveState": "activating", "SubState": "start-post", "Result": "exit-code", "NRestarts": "1"},
    ],
)
def test_a_crash_ends_the_wait_with_the_end_of_the_journal(template: Template, systemd: Systemd, end: dict[str, str]) -> None:
    configure(template, "a")
    systemd.after["a"] = end
    with pytest.raises(InstanceError, match=r"vllm@a\.service did not come up \(exit-code\)[^$]*no such model"):
        template.apply(template.plan(["a"]), ["a"], timeout=5, restart=False)


@pytest.mark.parametrize(
    "end",
    [
        {"ActiveState": "activating", "SubState": "auto-restart", "Result": "success"},
        {"ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": "1"},
    ],
)
def test_an_instance_that_ended_well_gets_one_start_by_systemd(template: Template, systemd: Systemd, end: dict[str, str]) -> None:
    configure(template, "a")
    systemd.after["a"] = end
    template.sleep = lambda dummy: systemd.set("a", "active", NRestarts="1")
    template.apply(template.plan(["a"]), ["a"], timeout=5, restart=False)


def test_an_instance_that_ends_well_again_and_again_does_not_serve(template: Template, systemd: Systemd) -> None:
    configure(template, "a")
    systemd.after["a"] = {"ActiveState": "activating", "SubState": "auto-restart", "Result": "success"}
    attempts = iter("1234")
    template.sleep = lambda dummy: systemd.set("a", "activating", "start", NRestarts=next(attempts))
    with pytest.raises(InstanceError, match=r"vllm@a\.service did not come up \(success\)"):
        template.apply(template.plan(["a"]), ["a"], timeout=5, restart=False)


def test_one_that_waits_for_its_next_attempt_is_started_now(template: Template, systemd: Systemd) -> None:
    systemd.set("a", "activating", "auto-restart", Result="exit-code", NRestarts="7")
    configure(template, "a", started_with="present")
    template.apply(template.plan(["a"]), ["a"], timeout=5, restart=False)
    assert systemd.units["a"]["ActiveState"] == "active"


def test_the_wait_ends_with_its_time(template: Template, systemd: Systemd) -> None:
    configure(template, "a")
    systemd.after["a"] = {}
    with pytest.raises(InstanceError, match="did not come up in 0 s"):
        template.apply(template.plan(["a"]), ["a"], timeout=0, restart=False)


def test_a_changed_unit_file_is_read_again(template: Template, systemd: Systemd) -> None:
    systemd.set("a", "active", NeedDaemonReload="yes")
    configure(template, "a", started_with="present")
    template.apply(template.plan(["a"]), ["a"], timeout=5, restart=False)
    assert systemd.said == ["daemon-reload"]


@pytest.fixture
def claiming(template: Template, tmp_path: Path) -> Template:
    """A template of instances that each need GPUs of their own."""
    return dataclasses.replace(template, files=(*template.files, str(tmp_path / "etc/%i.env")), claims=("GPUS",))


def give(template: Template, systemd: Systemd, name: str, gpus: str, had: str | None = None) -> None:
    """Configure an instance with GPUs; it runs if it had some before."""
    configure(template, name, started_with=None if had is None else "present")
    environment = Path(template.files[2].replace("%i", name))
    environment.write_text(f'GPUS="{gpus}"\n')
    if had is not None:
        systemd.set(name, "active")
        (Path(template.started_with.replace("%i", name)) / environment.name).write_text(f'GPUS="{had}"\n')


def test_nobody_is_started_on_gpus_that_another_still_holds(claiming: Template, systemd: Systemd) -> None:
    give(claiming, systemd, "new", "0,1")
    give(claiming, systemd, "free", "4")
    give(claiming, systemd, "old", "2,3", had="0,1")
    plan = claiming.plan(["new", "free", "old"])
    assert (plan.start, plan.blocked, plan.stale, plan.groups) == (("free",), ("new",), ("old",), (("old", "new"),))
    claiming.apply(plan, ["new", "free", "old"], timeout=5, restart=False)
    assert systemd.said[-1] == "restart --no-block vllm@free"


def test_who_changes_places_is_stopped_together_before_anybody_starts(claiming: Template, systemd: Systemd) -> None:
    give(claiming, systemd, "a", "2,3", had="0,1")
    give(claiming, systemd, "b", "0,1", had="2,3")
    give(claiming, systemd, "c", "4", had="5")
    plan = claiming.plan(["a", "b", "c"])
    assert plan.groups == (("a", "b"), ("c",))
    claiming.apply(plan, ["a", "b", "c"], timeout=5, restart=True)
    assert systemd.said == ["stop vllm@a vllm@b", "restart --no-block vllm@a vllm@b", "restart --no-block vllm@c"]


def test_a_chain_of_moves_is_one_group(claiming: Template, systemd: Systemd) -> None:
    give(claiming, systemd, "a", "1", had="0")
    give(claiming, systemd, "c", "3", had="2")
    give(claiming, systemd, "b", "2", had="1")
    (group,) = claiming.plan(["a", "c", "b"]).groups
    assert sorted(group) == ["a", "b", "c"]


def test_what_is_not_declared_is_in_the_way_as_long_as_it_is_kept(claiming: Template, systemd: Systemd) -> None:
    give(claiming, systemd, "gone", "0", had="0")
    give(claiming, systemd, "new", "0")
    plan = claiming.plan(["new"])
    assert (plan.remove, plan.start, plan.blocked) == (("gone",), (), ("new",))
    claiming.apply(dataclasses.replace(plan, remove=()), ["new"], timeout=5, restart=False)
    assert not any("gone" in said or "new" in said for said in systemd.said if not said.startswith("enable"))
    claiming.remove(plan.remove)
    systemd.set("gone", "inactive", "dead", enabled=False)
    assert claiming.plan(["new"]).start == ("new",)
