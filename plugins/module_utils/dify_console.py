# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dify's console, asked as its own web pages ask it: what a fresh platform needs before it answers a chat.

Routes: ``api/controllers/console`` of Dify 1.16. Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import base64
import http.client
import http.cookiejar
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]
MODEL_TYPE = "llm"
CURRENT = "workspaces/current"


class ConsoleError(Exception):
    """The console refused something, or gave no answer; with what to do."""


@dataclass(frozen=True)
class Answer:
    """What the console said.

    Attributes:
        status: HTTP's status.
        body: The JSON object; empty where there was none.
    """

    status: int
    body: Json

    @property
    def message(self) -> str:
        """Return its complaint."""
        return str(self.body.get("message") or self.body.get("error") or f"status {self.status}")


class Console:
    """A session with the console."""

    def __init__(self, url: str, timeout: float = 60) -> None:
        """Talk to ``url``, which has neither path nor proxy; an answer takes at most ``timeout`` seconds."""
        self.url, self.timeout = url.rstrip("/"), timeout
        # Dify's cookies are for HTTPS where its console is, and this may go over loopback.
        self.cookies = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(secure_protocols=("http", "https")))
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies))

    def ask(self, method: str, path: str, body: object = None, package: bytes | None = None) -> Answer:
        """Ask for something below ``/console/api/``; with ``package`` as an upload.

        Raises:
            ConsoleError: nobody answered.
        """
        headers = {"Accept": "application/json"}
        data = None
        if package is not None:
            boundary = uuid.uuid4().hex
            headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="pkg"; filename="plugin.difypkg"\r\n'
            data = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + package + f"\r\n--{boundary}--\r\n".encode()
        elif body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        for cookie in self.cookies:
            if cookie.name.removeprefix("__Host-") == "csrf_token" and cookie.value:
                headers["X-CSRF-Token"] = cookie.value
        request = urllib.request.Request(f"{self.url}/console/api/{path}", data, headers, method=method)  # noqa: S310 - the role gives the address
        try:
            with self.opener.open(request, timeout=self.timeout) as answer:
                return Answer(answer.status, self._object(answer.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, self._object(error.read()))
        except (OSError, http.client.HTTPException) as error:
            msg = f"{method} {path}: no answer from {self.url}: {error}. Is an api of Dify up? `systemctl status 'dify_api_*'`."
            raise ConsoleError(msg) from error

    def log_in(self, email: str, password: str) -> None:
        """Log in.

        Raises:
            ConsoleError: nobody can by that address and password; with what to do.
        """
        encoded = base64.b64encode(password.encode()).decode()
        answer = self.ask("POST", "login", {"email": email, "password": encoded, "remember_me": False})
        if answer.status >= 300:
            msg = (
                f"nobody can log in as {email} with the password that was given: {answer.message}. If it was changed in the console, give "
                "the new one; if the account is another's, give that one's address; or leave the set-up to a person."
            )
            raise ConsoleError(msg)

    def must(self, method: str, path: str, body: object = None, package: bytes | None = None) -> Json:
        """The same for what must succeed.

        Raises:
            ConsoleError: it did not.
        """
        answer = self.ask(method, path, body, package)
        if answer.status >= 300:
            msg = f"{method} {path} was refused: {answer.message}"
            raise ConsoleError(msg)
        return answer.body

    @staticmethod
    def _object(content: bytes) -> Json:
        try:
            found = json.loads(content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {"data": found}


@dataclass(frozen=True)
class Account:
    """The first account.

    Attributes:
        email: By which it logs in.
        name: As it is shown.
        password: With letters and digits, eight characters at least.
        language: Of its pages.
    """

    email: str
    name: str
    password: str
    language: str = "en-US"


@dataclass(frozen=True)
class Model:
    """A model of the provider.

    Attributes:
        name: As its endpoint knows it.
        context_size: Tokens of question and answer together.
    """

    name: str
    context_size: int = 4096


@dataclass(frozen=True)
class Wanted:
    """What a platform is to have.

    Attributes:
        account: The first account.
        init_password: What guards the set-up; nothing, if nothing does.
        workspace: Name of the workspace; nothing for the name that Dify gives it.
        provider: Provider of models, ``<author>/<plugin>/<provider>``.
        package: The provider's plugin, if it is to be installed.
        endpoint: Where the models answer.
        api_key: What they are asked with.
        models: The models.
        default_model: The one of them that applications use unless told otherwise; nothing to leave it as it is.
    """

    account: Account
    init_password: str = ""
    workspace: str = ""
    provider: str = ""
    package: Path | None = None
    endpoint: str = ""
    api_key: str = ""
    models: Sequence[Model] = ()
    default_model: str = ""


@dataclass
class Setup:
    """Brings a platform to what is wanted, a step at a time, each only if it is needed.

    Attributes:
        console: A fresh session.
        wanted: What there is to be.
        dry: Only look.
        sleep: Waits some seconds.
        before: What was there that is not wanted so, for a diff.
        after: What is there instead.
    """

    console: Console
    wanted: Wanted
    dry: bool = False
    sleep: Callable[[float], None] = time.sleep
    before: Json = field(default_factory=dict)
    after: Json = field(default_factory=dict)

    def run(self) -> bool:
        """Take all steps; tell whether something was, or would have been, changed.

        Raises:
            ConsoleError: a step was refused.
        """
        if self._account():
            self.console.log_in(self.wanted.account.email, self.wanted.account.password)
            self._workspace()
            if self.wanted.provider and self._plugin():
                self._models()
                self._default_model()
        return bool(self.after)

    def _note(self, what: str, before: object, after: object) -> bool:
        """Note a change; tell whether it is to be made."""
        if before is not None:
            self.before[what] = before
        self.after[what] = after
        return not self.dry

    def _account(self) -> bool:
        """Make the first account; tell whether there is one to log in with."""
        if self.console.must("GET", "setup").get("step") == "finished":
            return True
        account = self.wanted.account
        # Without an account nobody can look further.
        later: Json = {"account": account.email, "workspace": self.wanted.workspace, "models": [model.name for model in self.wanted.models]}
        if self.dry:
            self.after.update({key: value for key, value in later.items() if value})
            return False
        self._note("account", None, account.email)
        if self.console.must("GET", "init").get("status") != "finished":
            self.console.must("POST", "init", {"password": self.wanted.init_password})
        answer = self.console.ask(
            "POST", "setup", {"email": account.email, "name": account.name, "password": account.password, "language": account.language}
        )
        if answer.status >= 300 and answer.body.get("code") != "already_setup":
            msg = f"the first account was refused: {answer.message}"
            raise ConsoleError(msg)
        return True

    def _workspace(self) -> None:
        wanted = self.wanted.workspace
        if not wanted:
            return
        current = self.console.must("POST", CURRENT, {})
        if current.get("name") != wanted and self._note("workspace", current.get("name"), wanted):
            self.console.must("POST", "workspaces/info", {"name": wanted})

    def _plugin(self) -> bool:
        """Install the provider's plugin; tell whether there is one to register models with."""
        offered = self.console.must("GET", f"{CURRENT}/model-providers").get("data", [])
        there = any(entry.get("provider") == self.wanted.provider for entry in offered)
        if self.wanted.package is None:
            if not there:
                msg = f"no plugin offers the provider {self.wanted.provider}: give its package, or install it in the console"
                raise ConsoleError(msg)
            return True
        plugin, version = described(self.wanted.package)
        installed = {
            entry.get("plugin_id"): entry.get("version")
            for entry in self.console.must("GET", f"{CURRENT}/plugin/list?page=1&page_size=256")["plugins"]
        }
        if installed.get(plugin) == version:
            return there or self._offered()
        if not self._note("plugin", installed.get(plugin), f"{plugin} {version}"):
            return there
        content = self.wanted.package.read_bytes()
        identifier = self.console.must("POST", f"{CURRENT}/plugin/upload/pkg", package=content)["unique_identifier"]
        started = self.console.must("POST", f"{CURRENT}/plugin/install/pkg", {"plugin_unique_identifiers": [identifier]})
        if not started.get("all_installed"):
            self._installed(str(started.get("task_id", "")))
        return self._offered()

    def _installed(self, task: str) -> None:
        """Wait until a plugin is installed: its Python environment is made first."""
        for dummy in range(300):
            found = self.console.must("GET", f"{CURRENT}/plugin/tasks/{task}").get("task", {})
            if found.get("status") == "success":
                return
            if found.get("status") == "failed":
                told = "; ".join(str(plugin.get("message")) for plugin in found.get("plugins", []) if plugin.get("message"))
                msg = f"the plugin could not be installed: {told}. `journalctl -u dify_plugin_daemon` on the host where it is active says more."
                raise ConsoleError(msg)
            self.sleep(2)
        raise ConsoleError("the plugin was not installed within 10 minutes: see `journalctl -u dify_plugin_daemon`")

    def _offered(self) -> bool:
        for dummy in range(15):
            if any(entry.get("provider") == self.wanted.provider for entry in self.console.must("GET", f"{CURRENT}/model-providers").get("data", [])):
                return True
            self.sleep(2)
        msg = f"the plugin is installed, and does not offer the provider {self.wanted.provider}: is it another's package?"
        raise ConsoleError(msg)

    def _models(self) -> None:
        path = f"{CURRENT}/model-providers/{self.wanted.provider}/models/credentials"
        for model in self.wanted.models:
            query = urllib.parse.urlencode({"model": model.name, "model_type": MODEL_TYPE})
            found = self.console.must("GET", f"{path}?{query}")
            credentials = {
                "endpoint_url": self.wanted.endpoint,
                "api_key": self.wanted.api_key,
                "mode": "chat",
                "context_size": str(model.context_size),
            }
            current = found.get("credentials") or {}
            shown = {**credentials, "api_key": obfuscated(self.wanted.api_key)}
            body: Json = {"model": model.name, "model_type": MODEL_TYPE, "name": "model_gateway", "credentials": credentials}
            different = {key: value for key, value in shown.items() if str(current.get(key, "")) != value}
            what = f"model {model.name}"
            if not found.get("current_credential_id"):
                if self._note(what, None, shown):
                    self.console.must("POST", path, body)
            elif different and self._note(what, {key: current.get(key) for key in different}, different):
                self.console.must("PUT", path, {**body, "credential_id": found["current_credential_id"]})

    def _default_model(self) -> None:
        name = self.wanted.default_model
        if not name:
            return
        current = self.console.must("GET", f"{CURRENT}/default-model?model_type={MODEL_TYPE}").get("data") or {}
        # Whoever has chosen another has done so in the console, and keeps it.
        if not current and self._note("default_model", None, name):
            chosen = {"model_type": MODEL_TYPE, "provider": self.wanted.provider, "model": name}
            self.console.must("POST", f"{CURRENT}/default-model", {"model_settings": [chosen]})


@dataclass(frozen=True)
class Application:
    """A chat application by its name, and a key of it.

    Attributes:
        name: Its name, which no other application has.
        provider: Provider of its model.
        model: Its model.
        max_tokens: Longest answer, in tokens.
    """

    name: str
    provider: str
    model: str
    max_tokens: int = 512

    def ensure(self, console: Console, dry: bool = False) -> tuple[list[str], str]:
        """Make it, and its key, where there is none; give what was made, and the key.

        Args:
            console: A session, logged in.
            dry: Only look; there may then be no key to give.

        Raises:
            ConsoleError: the console refused something, or the name is another kind of application's.
        """
        made: list[str] = []
        query = urllib.parse.urlencode({"page": 1, "limit": 100, "name": self.name})
        found = [app for app in console.must("GET", f"apps?{query}").get("data", []) if app.get("name") == self.name]
        if any(app.get("mode") != "chat" for app in found):
            msg = f"an application named '{self.name}' is there, and is no chat application: give another name, or rename that one"
            raise ConsoleError(msg)
        if not found:
            made.append("application")
            if dry:
                return [*made, "key"], ""
            found = [
                console.must("POST", "apps", {"name": self.name, "mode": "chat", "icon_type": "emoji", "icon": "🤖", "icon_background": "#FFEAD5"})
            ]
            # What its model is, the console shows in another form than it takes; whoever changes it there keeps the change.
            chosen = {"provider": self.provider, "name": self.model, "mode": "chat", "completion_params": {"max_tokens": self.max_tokens}}
            console.must("POST", f"apps/{found[0]['id']}/model-config", {"model": chosen, "pre_prompt": "", "prompt_type": "simple"})
        path = f"apps/{found[0]['id']}/api-keys"
        keys = console.must("GET", path).get("data", [])
        if not keys:
            made.append("key")
            if dry:
                return made, ""
            keys = [console.must("POST", path)]
        return made, str(keys[0]["token"])


def obfuscated(secret: str) -> str:
    """Return a secret as Dify shows it (``core/helper/encrypter.py``): enough to tell it from another one."""
    return "*" * 20 if len(secret) <= 8 else f"{secret[:6]}{'*' * 12}{secret[-2:]}"


def described(package: Path) -> tuple[str, str]:
    """Return the id and the version of a plugin's package.

    Raises:
        ConsoleError: it is no such package.
    """
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(package) as archive:
            manifest = archive.read("manifest.yaml").decode()
        # Its first lines are plain words, and no YAML is at hand here.
        for name in ("author", "name", "version"):
            line = re.search(rf"^{name}:\s*['\"]?([^'\"\s#]+)", manifest, re.MULTILINE)
            found[name] = line.group(1) if line else ""
    except (OSError, zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        msg = f"{package} is not the package of a plugin (.difypkg): {error}"
        raise ConsoleError(msg) from error
    if not all(found.values()):
        msg = f"{package}: its manifest.yaml lacks author, name or version"
        raise ConsoleError(msg)
    return f"{found['author']}/{found['name']}", found["version"]


def wanted_from(given: Mapping[str, Any]) -> Wanted:
    """Read a module's parameters."""
    return Wanted(
        account=Account(**given["account"]),
        init_password=given["init_password"] or "",
        workspace=given["workspace"],
        provider=given["provider"],
        package=Path(given["package"]) if given["package"] else None,
        endpoint=given["endpoint"],
        api_key=given["api_key"] or "",
        models=[Model(**model) for model in given["models"]],
        default_model=given["default_model"],
    )
