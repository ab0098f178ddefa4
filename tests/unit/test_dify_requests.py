"""Requests to Dify's api that last too long are ended at the proxy, and nothing else is."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils import haproxy

from tests.role_program import load

# As 3.0.11 prints one in HTTP mode, shortened in the middle.
SESSION = (
    "{identity}: proto=tcpv4 src=198.18.1.11:38060 fe=api be={backend} srv={server} ts=00 epoch=0x3 age={age} calls=3 rate=0 cpu=0 lat=0 "
    "rq[f=848000h,i=0,an=00h,ax=] scf=[8,0h,fd=14,rex=10m,wex=] scb=[8,1h,fd=15,rex=10m,wex=] exp=10m rc=0 c_exp="
)


class Proxy:
    """A dify_proxy with some sessions: identity, backend, server, age."""

    def __init__(self, *sessions: tuple[str, str, str, str]) -> None:  # noqa: D107
        self.sessions = sessions
        self.ended: list[str] = []

    def __call__(self, command: str) -> str:  # noqa: D102
        if command == "show sess":
            return "\n".join(SESSION.format(identity=i, backend=b, server=s, age=a) for i, b, s, a in self.sessions)
        assert command.startswith("shutdown session ")
        self.ended.append(command.rpartition(" ")[2])
        return ""


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # On a host it lies beside the program.
    monkeypatch.setitem(sys.modules, "haproxy", haproxy)
    return load("dify", "dify_requests")


def test_what_lasts_longer_than_it_may_is_ended_and_told_of(requests: ModuleType) -> None:
    proxy = Proxy(
        ("0xa1", "api", "dify_api_1", "21m1s"),
        ("0xa2", "api_reserved", "dify_api_1", "1h2m"),
        ("0xa3", "api", "dify_api_1", "21m"),
        ("0xa4", "api", "dify_api_1", "2d0h"),
        ("0xa5", "api_elsewhere", "hq-app2", "59s"),
        # Open for long on purpose, and who waits for a place.
        ("0xa6", "websocket", "dify_websocket", "9h0m"),
        ("0xa7", "every_api", "hq-app2", "9h0m"),
        ("0xa8", "api", "<none>", "22m0s"),
    )
    told = requests.end_overdue(proxy, 1260)
    assert proxy.ended == ["0xa1", "0xa2", "0xa4"]
    assert told == [
        "<4>ended 2 request(s) at api/dify_api_1 that had lasted for up to 172800 s, of 1260; if more come, restart the api",
        "<4>ended 1 request(s) at api_reserved/dify_api_1 that had lasted for up to 3720 s, of 1260; if more come, restart the api",
    ]
    assert requests.end_overdue(Proxy(), 1260) == []
