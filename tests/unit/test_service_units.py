"""Units and the files that they have loaded, against a systemd that is made of a dictionary."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils import service_units
from ansible_collections.sovereign.dify.plugins.module_utils.service_units import Command, Host, ServiceUnitsError, Unit

NAME = "nginx.service"


class Systemd:
    """Remembers what it was told; a start or restart is a new invocation."""

    def __init__(self) -> None:
        """Start with a unit that is installed and does not run."""
        self.units: dict[str, dict[str, str]] = {NAME: unit()}
        self.said: list[str] = []
        self.refuses: set[str] = set()
        self.dies = False
        self.clock_was_behind = timedelta()

    def run(self, command: list[str]) -> str:
        """Answer what systemctl would."""
        names = [word for word in command if "." in word and not word.startswith("-")]
        verb = command[-1] if len(command) == 1 else command[1]
        if command[0] == "journalctl":
            return "nginx: [emerg] no such key\n"
        if command[0] != "systemctl":
            self.said.append(" ".join(command))
            return ""
        if verb == "show":
            return "\n\n".join(
                "\n".join(f"{key}={value}" for key, value in self.units.get(name, unit(LoadState="not-found")).items()) for name in names
            )
        self.said.append(" ".join(word for word in command[1:] if word not in {"--", "--quiet"}))
        if verb in self.refuses:
            raise ServiceUnitsError("Job failed.")
        for name in names:
            if verb in {"start", "restart"}:
                self.begin(name)
            if verb == "enable":
                self.units[name]["UnitFileState"] = "enabled"
        if verb == "daemon-reload":
            for state in self.units.values():
                state["NeedDaemonReload"] = "no"
        return ""

    def begin(self, name: str = NAME) -> None:
        """Start a unit, as the boot or somebody else would."""
        number = int(self.units[name]["InvocationID"] or 0) + 1
        self.units[name].update(
            ActiveState="failed" if self.dies else "active",
            InvocationID=str(number),
            InactiveExitTimestampMonotonic=str(int(time.monotonic() * 1e6)),
            InactiveExitTimestamp=(datetime.now(UTC) - self.clock_was_behind).strftime("%a %Y-%m-%d %H:%M:%S.%f UTC"),
        )


def unit(**values: str) -> dict[str, str]:
    """Give what systemd shows of a unit that does not run."""
    return {
        "LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "UnitFileState": "disabled", "NeedDaemonReload": "no",
        "InvocationID": "", "InactiveExitTimestamp": "", "InactiveExitTimestampMonotonic": "0", "Type": "notify", "Result": "success", **values,
    }  # fmt: skip


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


@pytest.fixture
def host(tmp_path: Path, systemd: Systemd) -> Host:
    return Host(systemd.run, tmp_path / "loaded", boot="first")


@pytest.fixture
def nginx(tmp_path: Path) -> Unit:
    (tmp_path / "nginx.conf").write_text("one")
    (tmp_path / "unit.conf").write_text("one")
    (tmp_path / "conf.d").mkdir()
    return Unit(
        NAME,
        enabled=True,
        reload=(str(tmp_path / "nginx.conf"), str(tmp_path / "conf.d"), str(tmp_path / "*.map")),
        restart=(str(tmp_path / "unit.conf"),),
    )


def converge(host: Host, *units: Unit, systemd: Systemd | None = None) -> list[tuple[str, str, list[str]]]:
    """Have units as wanted, and give what was done."""
    if systemd:
        systemd.said.clear()
    plan = host.plan(units)
    host.apply(plan, units)
    return [(step.name, step.action, [Path(path).name for path in step.files]) for step in plan.steps]


def later(path: Path) -> None:
    """Wait until a file that is written now is younger than what went before: its time is taken from a clock that ticks slowly."""
    probe = path.with_name("probe")
    probe.write_text("")
    before = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == before:
        probe.write_text("")
    probe.unlink()


def test_a_unit_is_enabled_and_started_once(host: Host, systemd: Systemd, nginx: Unit) -> None:
    assert converge(host, nginx) == [(NAME, "enable", []), (NAME, "start", [])]
    assert systemd.said == ["daemon-reload", f"enable {NAME}", f"start {NAME}"]
    assert converge(host, nginx, systemd=systemd) == []
    assert systemd.said == []


@pytest.mark.parametrize(
    ("name", "action"), [("nginx.conf", "reload"), ("conf.d/new.conf", "reload"), ("keys.map", "reload"), ("unit.conf", "restart")]
)
def test_a_file_that_was_written_by_a_run_that_was_cut_is_taken_up(
    host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path, name: str, action: str
) -> None:
    converge(host, nginx)
    (tmp_path / name).write_text("two")
    done = converge(host, nginx, systemd=systemd)
    assert done == [(NAME, action, [Path(name).name])]
    assert converge(host, nginx) == []


def test_a_file_that_is_gone_is_a_change_too(host: Host, nginx: Unit, tmp_path: Path) -> None:
    (tmp_path / "conf.d/a.conf").write_text("one")
    converge(host, nginx)
    (tmp_path / "conf.d/a.conf").unlink()
    assert converge(host, nginx) == [(NAME, "reload", ["a.conf"])]
    assert converge(host, nginx) == []


def test_a_run_that_is_cut_between_reload_and_record_reloads_once_more(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    converge(host, nginx)
    (tmp_path / "nginx.conf").write_text("two")
    plan = host.plan([nginx])
    systemd.run(["systemctl", "reload", NAME])
    assert plan.steps
    assert converge(host, nginx) == [(NAME, "reload", ["nginx.conf"])]


def test_a_reload_that_fails_is_tried_again_and_says_why(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    converge(host, nginx)
    (tmp_path / "nginx.conf").write_text("broken")
    systemd.refuses = {"reload-or-restart"}
    for _ in range(2):
        with pytest.raises(ServiceUnitsError, match=r"nginx.service: systemctl reload-or-restart failed: Job failed.*\n.*no such key"):
            converge(host, nginx)
    systemd.refuses = set()
    assert converge(host, nginx) == [(NAME, "reload", ["nginx.conf"])]


def test_who_was_started_by_somebody_else_is_judged_by_the_clock(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    later(tmp_path / "x")
    systemd.begin()
    systemd.units[NAME]["UnitFileState"] = "enabled"
    assert converge(host, nginx) == []
    # From now on there is a record: a file of the same content is no change, whatever its time.
    os.utime(tmp_path / "nginx.conf")
    assert converge(host, nginx) == []
    # It was started again, after a file had changed, and before another one did.
    (tmp_path / "nginx.conf").write_text("two")
    later(tmp_path / "x")
    systemd.begin()
    later(tmp_path / "x")
    (tmp_path / "keys.map").write_text("new")
    assert converge(host, nginx) == [(NAME, "reload", ["keys.map"])]


def test_a_clock_that_was_set_forward_hides_no_change(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    systemd.clock_was_behind = timedelta(hours=1)
    systemd.begin()
    systemd.units[NAME]["UnitFileState"] = "enabled"
    # Written a minute later, before the clock was set: a time from before the start as it would be reckoned now.
    earlier = time.time() - 3540
    assert host.look([NAME])[NAME].began < earlier


def test_a_package_starts_its_service_before_our_files_come(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    first = Unit(**{**vars(nginx), "rule": "first"})
    systemd.begin()
    later(tmp_path / "x")
    (tmp_path / "unit.conf").write_text("ours")
    assert ("restart", ["unit.conf"]) in [step[1:] for step in converge(host, first)]
    # It runs for clients now: a restart is the operator's to say.
    (tmp_path / "unit.conf").write_text("other limits")
    assert converge(host, first) == []
    (tmp_path / "nginx.conf").write_text("two")
    assert converge(host, first) == [(NAME, "reload", ["nginx.conf"])]


def test_a_restart_that_is_due_is_told_until_it_has_happened(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    member = Unit(**{**vars(nginx), "rule": "report"})
    converge(host, member)
    (tmp_path / "unit.conf").write_text("two")
    for _ in range(2):
        plan = host.plan([member])
        host.apply(plan, [member])
        assert plan.steps == ()
        assert plan.due == {NAME: (str(tmp_path / "unit.conf"),)}
    later(tmp_path / "x")
    systemd.begin()
    assert host.plan([member]).due == {}


def test_what_a_reload_has_not_loaded_stays_due(host: Host, nginx: Unit, tmp_path: Path) -> None:
    member = Unit(**{**vars(nginx), "rule": "report"})
    converge(host, member)
    (tmp_path / "unit.conf").write_text("two")
    (tmp_path / "nginx.conf").write_text("two")
    assert converge(host, member) == [(NAME, "reload", ["nginx.conf"])]
    assert host.plan([member]).due == {NAME: (str(tmp_path / "unit.conf"),)}


def test_who_does_not_run_is_started_or_left_alone(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    left = Unit(NAME, "current", reload=nginx.reload)
    assert converge(host, left) == []
    systemd.begin()
    later(tmp_path / "x")
    (tmp_path / "nginx.conf").write_text("two")
    assert converge(host, left) == [(NAME, "reload", ["nginx.conf"])]
    assert converge(host, Unit(NAME, "stopped", enabled=False)) == [(NAME, "stop", [])]


def test_who_still_comes_up_is_not_reloaded_before_it_has(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    converge(host, nginx)
    systemd.units[NAME]["ActiveState"] = "activating"
    (tmp_path / "nginx.conf").write_text("two")
    assert converge(host, nginx) == []
    systemd.units[NAME]["ActiveState"] = "active"
    assert converge(host, nginx) == [(NAME, "reload", ["nginx.conf"])]


def test_users_of_a_certificate_are_known_by_what_they_load(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    pem = str(tmp_path / "host.pem")
    Path(pem).write_text("one")
    whole = Unit(**{**vars(nginx), "reload": (*nginx.reload, pem)})
    assert host.users([pem]) == []
    converge(host, whole)
    assert host.users([pem, "/etc/other"]) == [Unit(NAME, "current", reload=(pem,))]
    assert host.users(["/etc/other", *whole.restart]) == []
    (tmp_path / "nginx.conf").write_text("two")
    Path(pem).write_text("two")
    assert converge(host, *host.users([pem])) == [(NAME, "reload", ["host.pem"])]
    # That reload took the other one up as well, which nobody knows: once more, and never too seldom.
    assert converge(host, whole) == [(NAME, "reload", ["nginx.conf"])]
    assert converge(host, whole) == []
    systemd.units[NAME]["ActiveState"] = "inactive"
    Path(pem).write_text("three")
    assert converge(host, *host.users([pem])) == []


def test_a_unit_that_changed_on_disk_is_read_again(host: Host, systemd: Systemd, nginx: Unit) -> None:
    converge(host, nginx)
    systemd.units[NAME]["NeedDaemonReload"] = "yes"
    assert converge(host, nginx, systemd=systemd) == [(NAME, "reread", [])]
    assert systemd.said == ["daemon-reload"]
    assert converge(host, nginx) == []


def test_what_something_else_has_shown_to_be_stale_is_reloaded(host: Host, nginx: Unit) -> None:
    converge(host, nginx)
    assert converge(host, Unit(**{**vars(nginx), "stale": True})) == [(NAME, "reload", [])]


def test_a_unit_that_is_not_there_is_named(host: Host, systemd: Systemd) -> None:
    with pytest.raises(ServiceUnitsError, match=r"There is no unit absent\.service on this host"):
        host.plan([Unit("absent.service")])
    assert systemd.said == ["daemon-reload"]
    assert [step.action for step in host.plan([Unit("absent.service")], check_mode=True).steps] == ["start"]
    assert host.plan([Unit("absent.service", "current")]).steps == ()


def test_a_unit_that_does_not_stay_up_is_no_success(host: Host, systemd: Systemd, nginx: Unit) -> None:
    systemd.dies = True
    with pytest.raises(ServiceUnitsError, match=r"nginx.service did not stay up \(failed\). The end of its journal:\n.*no such key"):
        converge(host, nginx)
    systemd.dies = False
    converge(host, nginx, systemd=systemd)
    assert systemd.said == ["daemon-reload", f"reset-failed {NAME}", f"start {NAME}"]


def test_check_mode_counts_what_would_have_been_written(host: Host, systemd: Systemd, nginx: Unit, tmp_path: Path) -> None:
    converge(host, nginx)
    host.pending = frozenset({str(tmp_path / "nginx.conf"), "/etc/other"})
    systemd.said.clear()
    assert [(step.action, step.files) for step in host.plan([nginx], check_mode=True).steps] == [("reload", (str(tmp_path / "nginx.conf"),))]
    assert systemd.said == []


def test_garbage_instead_of_a_record_is_no_record(host: Host, nginx: Unit, tmp_path: Path) -> None:
    converge(host, nginx)
    later(tmp_path / "x")
    for garbage in ("", "{", "[]", '{"epoch": "1"}', '{"epoch": "1", "files": 3, "reload": []}'):
        (tmp_path / "loaded" / f"{NAME}.json").write_text(garbage)
        assert converge(host, nginx) == [], garbage


def test_a_command_runs_once_for_the_files_that_there_are(host: Host, systemd: Systemd, tmp_path: Path) -> None:
    trust = Command("trust-store", ("update-ca-certificates",), (str(tmp_path / "*.crt"),))
    assert host.is_due(trust, 0) == []
    (tmp_path / "a.crt").write_text("one")
    for expected in (["a.crt"], []):
        due = host.is_due(trust, 0)
        assert [Path(path).name for path in due] == expected
        if due:
            host.carry_out(trust)
    assert systemd.said == ["update-ca-certificates"]
    (tmp_path / "a.crt").unlink()
    assert [Path(path).name for path in host.is_due(trust, 0)] == ["a.crt"]
    host.carry_out(trust)
    assert host.is_due(trust, 0) == []


def test_a_boot_does_what_a_command_does(host: Host, systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("one")
    load = Command("sysctl", ("sysctl", "--load"), (str(tmp_path / "a.conf"),), boot=True)
    assert host.is_due(load, time.time() - 60) != []
    host.carry_out(load)
    assert host.is_due(load, time.time() - 60) == []
    host.boot = "second"
    assert host.is_due(load, time.time() + 1) == []
    (tmp_path / "a.conf").write_text("two")
    assert host.is_due(load, time.time() - 60) != []


def test_the_host_tells_when_it_was_booted() -> None:
    identity, moment = service_units.booted_at()
    assert identity == service_units.booted_at()[0]
    assert moment < time.time()
