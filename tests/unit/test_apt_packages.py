"""What is asked of dpkg and of apt, against a dpkg that answers from a table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.action.apt_packages import ActionModule
from ansible_collections.sovereign.dify.plugins.module_utils.apt_packages import lists_are_old
from ansible_collections.sovereign.dify.plugins.modules import apt_packages

Look = Callable[..., dict[str, Any]]


class Ended(Exception):  # noqa: N818 - a module's regular end, too
    """What the module ends with."""

    def __init__(self, result: dict[str, Any]) -> None:
        """Keep it."""
        super().__init__(result.get("msg"))
        self.result = result


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Run the module over a dpkg that lists the given rows; what is held is in ``selections`` of the result."""

    def run(rows: str, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        selections: list[str] = []

        class Module:
            def __init__(self, **_: Any) -> None:
                self.params = {"hold": None, "update_cache": False, "cache_valid_time": 1, "made_of": [], **params}
                self.check_mode = check_mode

            def run_command(self, command: list[str], data: str = "", **_: Any) -> tuple[int, str, str]:
                if data:
                    selections.append(data)
                return 0, rows, ""

            def exit_json(self, **result: Any) -> None:
                raise Ended(result)

            def fail_json(self, **result: Any) -> None:
                raise Ended({"failed": True, **result})

        monkeypatch.setattr(apt_packages, "AnsibleModule", Module)
        with pytest.raises(Ended) as ended:
            apt_packages.main()
        return {**ended.value.result, "selections": "".join(selections)}

    return run


@pytest.mark.parametrize(
    ("rows", "params", "installed", "held"),
    [
        ("nginx 1.26 hold installed\n", {"name": ["nginx"]}, [], []),
        ("nginx 1.26 install installed\n", {"name": ["nginx"]}, [], ["nginx"]),
        ("nginx 1.26 install installed\n", {"name": ["nginx"], "hold": []}, [], []),
        ("nginx 1.26 hold half-configured\n", {"name": ["nginx"], "hold": []}, ["nginx"], []),
        ("nginx 1.26 deinstall config-files\n", {"name": ["nginx"], "hold": []}, ["nginx"], []),
        ("nginx 1.26 hold installed\n", {"name": ["nginx=1.26"]}, [], []),
        ("nginx 1.26 hold installed\n", {"name": ["nginx=1.27"]}, ["nginx"], []),
        ("", {"name": ["nginx"]}, ["nginx"], ["nginx"]),
        ("nginx 1 hold installed\nnginx-common 1 install installed\n", {"name": ["nginx"], "hold": ["nginx-common"]}, [], ["nginx-common"]),
    ],
)
def test_what_is_missing_and_what_is_loose(look: Look, rows: str, params: dict[str, Any], installed: list[str], held: list[str]) -> None:
    result = look(rows, **params)
    assert (result["installed"], result["held"], result["changed"]) == (installed, held, bool(installed or held))


def test_only_what_is_there_is_held_and_nothing_in_check_mode(look: Look) -> None:
    rows = "nginx 1 install installed\n"
    assert look(rows, name=["nginx", "redis"])["selections"] == "nginx hold\n"
    assert look(rows, name=["nginx"], check_mode=True)["selections"] == ""


def test_a_package_that_came_along_with_nobody_is_an_error(look: Look) -> None:
    result = look("nginx 1 hold installed\n", name=["nginx"], hold=["nginx", "ngnix-common"])
    assert result["failed"]
    assert "ngnix-common: not installed, neither by itself nor along with nginx" in result["msg"]


def act(answers: list[dict[str, Any]], check_mode: bool = False, **arguments: Any) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """Run the action over modules that answer in turn; give its result, and which modules were run with what."""
    asked: list[tuple[str, dict[str, Any]]] = []
    task: Any = SimpleNamespace(args={"name": ["nginx"], **arguments}, check_mode=check_mode, async_val=0, action="apt_packages")
    connection: Any = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nonexistent"))
    nothing: Any = None
    action = ActionModule(task, connection, nothing, nothing, nothing, nothing)

    def execute(module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        asked.append((module_name.rpartition(".")[2], module_args))
        return answers.pop(0)

    setattr(action, "_execute_module", execute)  # noqa: B010 - mypy would have it a method
    return action.run(None, {}), asked


PRESENT: dict[str, Any] = {"changed": False, "installed": [], "held": [], "old": False, "diff": {}}
ABSENT: dict[str, Any] = {"changed": True, "installed": ["nginx"], "held": ["nginx"], "old": False, "diff": {}}


def test_apt_is_not_asked_where_nothing_is_missing() -> None:
    result, asked = act([dict(PRESENT)])
    assert not result["changed"]
    assert [name for name, _ in asked] == ["apt_packages"]


def test_what_is_missing_is_installed_and_then_held() -> None:
    result, asked = act([dict(ABSENT), {"changed": True}, {**PRESENT, "held": ["nginx"]}])
    assert (result["changed"], result["installed"]) == (True, ["nginx"])
    assert [name for name, _ in asked] == ["apt_packages", "apt", "apt_packages"]
    assert asked[1][1] == {"name": ["nginx"], "state": "present", "install_recommends": False, "update_cache": True, "cache_valid_time": 86400}


def test_check_mode_holds_nothing_and_new_lists_are_read_when_they_are_asked_for() -> None:
    assert [name for name, _ in act([dict(ABSENT), {"changed": True}], check_mode=True)[1]] == ["apt_packages", "apt"]
    assert len(act([dict(PRESENT), {"changed": False}, dict(PRESENT)], update_cache=True)[1]) == 3


def test_lists_that_are_older_than_their_sources_are_read_anew() -> None:
    dummy, asked = act([{**ABSENT, "old": True}, {"changed": True}, {**PRESENT, "held": ["nginx"]}])
    assert asked[1][1]["cache_valid_time"] == 0


def test_what_decides_which_lists_there_are_makes_them_old(tmp_path: Path) -> None:
    etc, lists, index = tmp_path / "apt", tmp_path / "lists", tmp_path / "Packages"
    for directory in (etc / "sources.list.d", lists / "partial"):
        directory.mkdir(parents=True)
    source = etc / "sources.list.d/nvidia.list"
    for path in (source, index):
        path.write_text("")

    def old(**moments: float) -> bool:
        places = {"source": source, "directory": etc / "sources.list.d", "index": index, "lists": lists, "partial": lists / "partial"}
        for name, path in places.items():
            os.utime(path, (1000, moments.get(name, 1000)))
        return lists_are_old([index], etc, lists)

    assert not old()
    assert old(source=1001)
    assert old(directory=1001)
    assert old(index=1001)
    assert not old(source=1001, partial=1002)
    assert not old(index=1001, lists=1002)


def test_a_failure_of_apt_and_a_virtual_package_are_told() -> None:
    assert act([dict(ABSENT), {"failed": True, "msg": "no mirror"}])[0]["msg"] == "no mirror"
    result = act([dict(ABSENT), {"changed": True}, dict(ABSENT)])[0]
    assert result["failed"]
    assert "nothing by the name nginx" in result["msg"]
