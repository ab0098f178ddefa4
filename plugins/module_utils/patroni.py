# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration that the members of a Patroni cluster share, by Patroni's REST API."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional
from urllib.parse import urlsplit

Config = dict[str, Any]
"""Dynamic configuration, as ``GET /config`` gives it: nested dictionaries of what JSON can hold."""

Api = Callable[[str, str, Optional[Config]], tuple[int, Any]]  # noqa: UP045 - pylint of ansible-test knows no other form
"""Sends a method, a path and a body; returns the status and the JSON of the answer. Raises ``OSError`` where nobody answers."""


class PatroniError(Exception):
    """Patroni does not do, or did not become, what was asked."""


@dataclass(frozen=True)
class Member:
    """A member as the cluster sees it.

    Attributes:
        name: Its name.
        role: ``leader``, ``sync_standby``, ``quorum_standby``, ``replica`` or others of Patroni's.
        state: ``running``, ``streaming`` and others of Patroni's.
        pending_restart: Whether PostgreSQL runs with settings that only a restart replaces.
        reasons: Old and new value of each parameter for which that is so.
    """

    name: str
    role: str
    state: str
    pending_restart: bool = False
    reasons: Config = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether it serves."""
        return self.state in {"running", "streaming"}


def rest(url: str, ca: str, certificate: str, key: str, timeout: float) -> Api:
    """Give a way to a member's REST API over mutual TLS.

    Args:
        url: Where it listens, such as ``https://198.18.1.41:8008``.
        ca: File of the authorities that the member's certificate is verified against.
        certificate: File of the certificate that is shown to the member.
        key: File of its key.
        timeout: Seconds that an answer may take.
    """
    place = urlsplit(url)
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)

    def ask(method: str, path: str, body: Config | None) -> tuple[int, Any]:
        connection = http.client.HTTPSConnection(place.hostname or "", place.port or 443, timeout=timeout, context=context)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"{type(error).__name__} {error}") from error
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    return ask


def difference(declared: Mapping[str, Any], found: Mapping[str, Any]) -> Config:
    """Find what a ``PATCH`` has to say so that everything declared holds; what is not declared is left as it is.

    Args:
        declared: Wanted values, nested. ``None`` stands for a key that shall not be there.
        found: Present values.

    Returns:
        What differs, in the same nesting; empty if nothing does.
    """
    patch: Config = {}
    for key, value in declared.items():
        if isinstance(value, Mapping):
            present = found.get(key)
            if inner := difference(value, present if isinstance(present, Mapping) else {}):
                patch[key] = inner
        elif value is None:
            if key in found:
                patch[key] = None
        elif key not in found or not _same(value, found[key]):
            patch[key] = value
    return patch


def merged(found: Mapping[str, Any], patch: Mapping[str, Any]) -> Config:
    """Give what ``found`` becomes by ``patch``, as Patroni does it."""
    result = dict(found)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            present = result.get(key)
            result[key] = merged(present if isinstance(present, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def undeclared(declared: Mapping[str, Any], found: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the keys, as dotted paths, that are set and that nobody has declared."""
    paths: list[str] = []
    for key, value in found.items():
        if key not in declared:
            paths.append(prefix + key)
        elif isinstance(value, Mapping) and isinstance(declared[key], Mapping):
            paths += undeclared(declared[key], value, f"{prefix}{key}.")
    return sorted(paths)


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether two values mean the same to Patroni: PostgreSQL's are texts to it, however they were written."""
    scalars = (str, int, float)
    if isinstance(one, scalars) and isinstance(other, scalars):
        return _plain(one) == _plain(other)
    return bool(one == other)


def _plain(value: str | float) -> str:
    return {"true": "on", "false": "off"}.get(text := str(value).lower(), text)


class Cluster:
    """A cluster, asked through one of its members."""

    def __init__(self, ask: Api, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the way to the member."""
        self._ask, self._sleep, self._clock = ask, sleep, clock

    def members(self) -> list[Member]:
        """List the members, by name.

        Raises:
            OSError: The member asked does not answer.
            PatroniError: It answers that it does not know.
        """
        status, answer = self._ask("GET", "/cluster", None)
        if status != 200 or not isinstance(answer, dict):
            raise PatroniError(f"GET /cluster answers {status}: {answer}")
        listed = [
            Member(
                member["name"],
                member.get("role", ""),
                member.get("state", ""),
                bool(member.get("pending_restart")),
                member.get("pending_restart_reason") or {},
            )
            for member in answer.get("members", [])
        ]
        return sorted(listed, key=lambda member: member.name)

    def wait_for_leader(self, timeout: float) -> str:
        """Wait until somebody leads and serves; give the name.

        Raises:
            PatroniError: Nobody did in ``timeout`` seconds.
        """
        end = self._clock() + timeout
        while True:
            try:
                listed = self.members()
                leaders = [member.name for member in listed if member.role in {"leader", "standby_leader"} and member.runs]
                seen = ", ".join(f"{member.name} {member.role} {member.state}" for member in listed) or "no members yet"
            except (OSError, PatroniError) as error:
                leaders, seen = [], str(error)
            if leaders:
                return leaders[0]
            if self._clock() >= end:
                raise PatroniError(f"nobody leads after {timeout:g} s: {seen}")
            self._sleep(1)

    def config(self) -> Config:
        """Read the configuration that the members share."""
        status, answer = self._ask("GET", "/config", None)
        if status != 200 or not isinstance(answer, dict):
            raise PatroniError(f"GET /config answers {status}: {answer}")
        return answer

    def patch(self, patch: Config) -> None:
        """Change the configuration that the members share.

        Raises:
            PatroniError: The member refuses, or others kept changing it at the same time.
        """
        status, answer = 0, ""
        for dummy in range(3):
            status, answer = self._ask("PATCH", "/config", patch)
            if status == 200:
                return
            if status != 409:
                break
            self._sleep(1)
        raise PatroniError(f"PATCH /config answers {status}: {answer}")

    def settle(self, before: list[Member], seconds: float) -> list[Member]:
        """Give the members after each has had time to see a change; sooner, if all of them say something else of a restart than ``before``."""
        end, said = self._clock() + seconds, {member.name: member.pending_restart for member in before}
        while self._clock() < end:
            self._sleep(1)
            if all(member.pending_restart != said.get(member.name) for member in self.members() if member.runs):
                break
        return self.members()
