"""What the set-up asks of Dify's console, and what it leaves alone: on a console of a few lines that answers as Dify's does."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.dify_console import (
    Account,
    Answer,
    Application,
    Console,
    ConsoleError,
    Json,
    Model,
    Setup,
    Wanted,
    described,
    obfuscated,
)

PROVIDER = "langgenius/openai_api_compatible/openai_api_compatible"
KEY = "sk-dify-0123456789"
ACCOUNT = Account("admin@bank.test", "Admin", "pw1-secret")


class Stub(Console):
    """A console in memory."""

    def __init__(self) -> None:
        """Begin as a fresh platform."""
        super().__init__("http://nowhere.test")
        self.password = ""
        self.initialized = False
        self.workspace = "Admin's Workspace"
        self.plugins: dict[str, str] = {}
        self.models: dict[str, Json] = {}
        self.default: Json | None = None
        self.changes: list[str] = []

    def ask(self, method: str, path: str, body: object = None, package: bytes | None = None) -> Answer:
        """Answer as the routes do that are asked."""
        given: Json = body if isinstance(body, dict) else {}
        path, dummy, query = path.partition("?")
        what = f"{method} {path.removeprefix('workspaces/current').lstrip('/')}"
        routes: dict[str, Callable[[], Answer]] = {
            "GET setup": lambda: Answer(200, {"step": "finished" if self.password else "not_started"}),
            "GET init": lambda: Answer(200, {"status": "finished" if self.initialized else "not_started"}),
            "POST init": lambda: self._init(given),
            "POST setup": lambda: self._setup(given),
            "POST login": lambda: Answer(200, {}) if given["password"] == self.password else Answer(401, {"message": "Invalid email or password."}),
            "POST ": lambda: Answer(200, {"name": self.workspace}),
            "POST workspaces/info": lambda: self._rename(given),
            "GET model-providers": lambda: Answer(200, {"data": [{"provider": PROVIDER}] if self.plugins else []}),
            "GET plugin/list": lambda: Answer(200, {"plugins": [{"plugin_id": name, "version": v} for name, v in self.plugins.items()]}),
            "POST plugin/upload/pkg": lambda: Answer(200, {"unique_identifier": "x"}),
            "POST plugin/install/pkg": self._install,
            "GET plugin/tasks/1": lambda: Answer(200, {"task": {"status": "success"}}),
            f"GET model-providers/{PROVIDER}/models/credentials": lambda: Answer(200, self._model(query)),
            f"POST model-providers/{PROVIDER}/models/credentials": lambda: self._keep(given),
            f"PUT model-providers/{PROVIDER}/models/credentials": lambda: self._keep(given),
            "GET default-model": lambda: Answer(200, {"data": self.default}),
            "POST default-model": lambda: self._choose(given),
        }
        return routes[what]()

    def _note(self, what: str) -> Answer:
        self.changes.append(what)
        return Answer(201, {})

    def _init(self, given: Json) -> Answer:
        self.initialized = given["password"] == "init"
        return self._note("init") if self.initialized else Answer(401, {"message": "Init validation failed."})

    def _setup(self, given: Json) -> Answer:
        import base64

        self.password = base64.b64encode(given["password"].encode()).decode()
        return self._note("account")

    def _rename(self, given: Json) -> Answer:
        self.workspace = given["name"]
        return self._note("workspace")

    def _install(self) -> Answer:
        self.plugins["langgenius/openai_api_compatible"] = "0.0.1"
        self._note("plugin")
        return Answer(200, {"all_installed": False, "task_id": "1"})

    def _model(self, query: str) -> Json:
        kept = self.models.get(query.partition("&")[0].removeprefix("model="))
        return {"credentials": {**kept, "api_key": obfuscated(kept["api_key"])}, "current_credential_id": "1"} if kept else {"credentials": {}}

    def _keep(self, given: Json) -> Answer:
        self.models[given["model"]] = given["credentials"]
        return self._note(f"model {given['model']}")

    def _choose(self, given: Json) -> Answer:
        self.default = given["model_settings"][0]
        return self._note("default")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    file = tmp_path / "p.difypkg"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.yaml", "version: 0.0.1\ntype: plugin\nauthor: langgenius\nname: 'openai_api_compatible'\n")
    return file


def wanted(package: Path | None, **changes: Any) -> Wanted:
    given: dict[str, Any] = {
        "account": ACCOUNT,
        "init_password": "init",
        "workspace": "bank",
        "provider": PROVIDER,
        "package": package,
        "endpoint": "http://127.0.0.1:5004/v1",
        "api_key": KEY,
        "models": [Model("assistant", 1024)],
        "default_model": "assistant",
    }
    return Wanted(**{**given, **changes})


def test_a_fresh_platform_gets_everything_and_a_second_run_changes_nothing(package: Path) -> None:
    console = Stub()
    assert Setup(console, wanted(package)).run()
    assert console.changes == ["init", "account", "workspace", "plugin", "model assistant", "default"]
    console.changes.clear()
    assert not Setup(console, wanted(package)).run()
    assert console.changes == []


def test_check_mode_tells_and_changes_nothing(package: Path) -> None:
    console = Stub()
    setup = Setup(console, wanted(package), dry=True)
    assert setup.run()
    assert console.changes == []
    assert setup.after == {"account": "admin@bank.test", "workspace": "bank", "models": ["assistant"]}
    Setup(console, wanted(package)).run()
    console.changes.clear()
    setup = Setup(console, wanted(package, endpoint="http://elsewhere/v1"), dry=True)
    assert setup.run()
    assert (console.changes, setup.after) == ([], {"model assistant": {"endpoint_url": "http://elsewhere/v1"}})


def test_another_key_is_noticed_and_never_shown(package: Path) -> None:
    console = Stub()
    Setup(console, wanted(package)).run()
    setup = Setup(console, wanted(package, api_key="sk-dify-0123456zzz"))
    assert setup.run()
    assert console.models["assistant"]["api_key"] == "sk-dify-0123456zzz"
    assert "0123456" not in str(setup.before) + str(setup.after)


def test_a_default_model_that_somebody_chose_is_kept(package: Path) -> None:
    console = Stub()
    console.default = {"model": "another"}
    Setup(console, wanted(package)).run()
    assert console.default == {"model": "another"}


def test_a_changed_password_is_told_with_the_remedy(package: Path) -> None:
    console = Stub()
    Setup(console, wanted(package)).run()
    console.password = "changed"
    with pytest.raises(ConsoleError, match=r"nobody can log in as admin@bank.test .* give the new one"):
        Setup(console, wanted(package)).run()


def test_a_provider_that_no_plugin_offers_is_told(package: Path) -> None:
    with pytest.raises(ConsoleError, match="give its package"):
        Setup(Stub(), wanted(None)).run()


def test_a_wrong_init_password_stops_before_the_account(package: Path) -> None:
    console = Stub()
    with pytest.raises(ConsoleError, match="POST init was refused: Init validation failed"):
        Setup(console, wanted(package, init_password="wrong")).run()
    assert console.password == ""


@pytest.mark.parametrize("content", [b"no zip", None])
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "p.difypkg"
    if content:
        file.write_bytes(content)
    with pytest.raises(ConsoleError, match="is not the package of a plugin"):
        described(file)


def test_nobody_there_is_told_with_where_to_look() -> None:
    with pytest.raises(ConsoleError, match=r"no answer from http://127.0.0.1:9: .*systemctl status"):
        Console("http://127.0.0.1:9").ask("GET", "setup")


class Applications(Console):
    """The console's applications, in memory."""

    def __init__(self, *apps: Json) -> None:
        """Begin with these."""
        super().__init__("http://nowhere.test")
        self.apps, self.keys, self.models = [*apps], dict[str, list[Json]](), dict[str, Json]()

    def ask(self, method: str, path: str, body: object = None, package: bytes | None = None) -> Answer:
        """Answer as the routes do that are asked."""
        given: Json = body if isinstance(body, dict) else {}
        path = path.partition("?")[0]
        app = path.split("/")[1] if "/" in path else ""
        if (method, path) == ("GET", "apps"):
            return Answer(200, {"data": self.apps})
        if (method, path) == ("POST", "apps"):
            self.apps.append({**given, "id": f"id{len(self.apps)}"})
            return Answer(201, self.apps[-1])
        if path.endswith("model-config"):
            self.models[app] = given["model"]
            return Answer(200, {})
        if method == "POST":
            self.keys.setdefault(app, []).append({"token": f"app-{app}"})
        return Answer(200, {"data": self.keys.get(app, [])} if method == "GET" else self.keys[app][-1])


def test_an_application_is_made_once_and_keeps_its_key() -> None:
    console = Applications({"id": "other", "name": "Smoke test of somebody", "mode": "workflow"})
    application = Application("Smoke test", PROVIDER, "assistant", 16)
    assert application.ensure(console, dry=True) == (["application", "key"], "")
    assert len(console.apps) == 1
    assert application.ensure(console) == (["application", "key"], "app-id1")
    assert console.models["id1"] == {"provider": PROVIDER, "name": "assistant", "mode": "chat", "completion_params": {"max_tokens": 16}}
    assert application.ensure(console) == ([], "app-id1")


def test_a_name_of_another_kind_of_application_is_told() -> None:
    console = Applications({"id": "a", "name": "Smoke test", "mode": "workflow"})
    with pytest.raises(ConsoleError, match="no chat application: give another name"):
        Application("Smoke test", PROVIDER, "assistant").ensure(console)
