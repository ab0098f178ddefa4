"""Units of quadlets, against a systemd that is made of a dictionary."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.container_units import Quadlets
from ansible_collections.sovereign.dify.plugins.module_utils.unit_instances import InstanceError


class Systemd:
    """Remembers what it was told; what is started becomes active when time passes, or what ``fate`` says."""

    def __init__(self) -> None:
        """Know nothing."""
        self.active: dict[str, str] = {}
        self.unread: set[str] = set()
        self.fate: dict[str, str] = {}
        self.said: list[str] = []

    def run(self, command: list[str]) -> str:
        """Answer what systemctl and journalctl would."""
        names = [word.removesuffix(".service") for word in command if word.endswith(".service") and "*" not in word]
        if command[0] == "journalctl":
            return "no such image\n"
        if command[1] == "show" and "--property=LoadState" in command:
            return "not-found\n" if names[0] in self.unread else "loaded\n"
        if command[1] == "show":
            return "\n\n".join(self._shown(name) for name in names) + "\n"
        self.said.append(" ".join(word for word in command[1:] if word not in {"--", "--no-block"}).replace(".service", ""))
        for name in names:
            self.active[name] = "inactive" if command[1] == "stop" else "activating"
        return ""

    def _shown(self, name: str) -> str:
        state = self.active.get(name, "inactive")
        values = {"Id": f"{name}.service", "ActiveState": state, "SubState": "running", "Result": "exit-code", "NRestarts": "0"}
        return "\n".join(f"{key}={value}" for key, value in {**values, "UnitFileState": "generated", "NeedDaemonReload": "no"}.items())

    def sleep(self, dummy: float) -> None:
        """Let time pass."""
        self.active.update({name: self.fate.get(name, "active") for name, state in self.active.items() if state == "activating"})


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


@pytest.fixture
def quadlets(tmp_path: Path, systemd: Systemd) -> Quadlets:
    for folder in ("units", "etc", "run"):
        (tmp_path / folder).mkdir()
    files = (str(tmp_path / "units/%i.container"), str(tmp_path / "etc/%i.env"))
    return Quadlets("dify_", files, str(tmp_path / "run/%i"), systemd.run, systemd.sleep, supervised=("dify_beat",), directory=tmp_path / "units")


def configure(quadlets: Quadlets, systemd: Systemd, *names: str, started_with: str | None = None) -> None:
    for name in names:
        kept = Path(quadlets.started_with.replace("%i", name))
        for file in quadlets.files:
            path = Path(file.replace("%i", name))
            path.write_text("present")
            if started_with is not None:
                kept.mkdir(exist_ok=True)
                (kept / path.name).write_text(started_with)
        if started_with is not None:
            systemd.active[name] = "active"


def test_what_is_missing_is_started_and_a_second_time_nothing_is_to_do(quadlets: Quadlets, systemd: Systemd) -> None:
    configure(quadlets, systemd, "dify_api_1", "dify_web", "dify_beat")
    declared = ["dify_api_1", "dify_web", "dify_beat"]
    plan = quadlets.plan(declared)
    assert (plan.start, plan.enable) == (("dify_api_1", "dify_web"), ())
    quadlets.apply(plan, declared, 5, restart=False)
    assert systemd.said == ["daemon-reload", "reset-failed dify_*", "restart dify_api_1 dify_web"]
    configure(quadlets, systemd, "dify_api_1", "dify_web", started_with="present")
    again = quadlets.plan(declared)
    assert not (again.start or again.stale or again.remove or again.reload)


def test_what_runs_with_older_files_is_restarted_one_after_another_if_that_is_wanted(quadlets: Quadlets, systemd: Systemd) -> None:
    names = ["dify_api_1", "dify_api_2"]
    configure(quadlets, systemd, *names, started_with="former")
    plan = quadlets.plan(names)
    assert plan.stale == tuple(names)
    quadlets.apply(plan, names, 5, restart=False)
    assert systemd.said == ["daemon-reload"]
    quadlets.apply(plan, names, 5, restart=True)
    assert systemd.said[2:] == ["restart dify_api_1", "restart dify_api_2"]


def test_a_supervised_unit_is_never_started_but_restarted_where_it_runs(quadlets: Quadlets, systemd: Systemd) -> None:
    configure(quadlets, systemd, "dify_beat")
    assert quadlets.plan(["dify_beat"]).start == ()
    configure(quadlets, systemd, "dify_beat", started_with="former")
    plan = quadlets.plan(["dify_beat"])
    assert plan.stale == ("dify_beat",)
    # It may have come to run elsewhere meanwhile: only what runs is restarted.
    quadlets.apply(plan, ["dify_beat"], 5, restart=True)
    assert systemd.said[-1] == "try-restart dify_beat"


def test_a_supervised_unit_that_has_come_is_made_known_to_systemd(quadlets: Quadlets, systemd: Systemd) -> None:
    configure(quadlets, systemd, "dify_beat")
    systemd.unread.add("dify_beat")
    quadlets.apply(quadlets.plan(["dify_beat"]), ["dify_beat"], 5, restart=False)
    assert systemd.said == ["daemon-reload"]


def test_what_is_not_declared_any_more_is_stopped_and_its_files_go(quadlets: Quadlets, systemd: Systemd) -> None:
    configure(quadlets, systemd, "dify_api_1", "dify_api_2", started_with="present")
    plan = quadlets.plan(["dify_api_1"])
    assert plan.remove == ("dify_api_2",)
    quadlets.apply(plan, ["dify_api_1"], 5, restart=False)
    assert systemd.said == ["stop dify_api_2", "daemon-reload", "reset-failed dify_*"]
    assert quadlets.known() == {"dify_api_1"}


def test_files_of_others_are_nobodys_business(quadlets: Quadlets, systemd: Systemd) -> None:
    (quadlets.directory / "monitoring.container").write_text("of others")
    Path(quadlets.files[1].replace("%i", "other")).write_text("of others")
    assert quadlets.known() == set()


def test_a_unit_that_does_not_come_up_ends_the_run_with_its_journal(quadlets: Quadlets, systemd: Systemd) -> None:
    configure(quadlets, systemd, "dify_web")
    systemd.fate["dify_web"] = "failed"
    with pytest.raises(InstanceError, match=r"dify_web.service did not come up \(exit-code\)(.|\n)*no such image"):
        quadlets.apply(quadlets.plan(["dify_web"]), ["dify_web"], 5, restart=False)
