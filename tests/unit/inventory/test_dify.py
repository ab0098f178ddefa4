"""What the contract says of Dify."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.inventory.cases import HERE, contract

TEXT = (HERE / "good/dify/cluster.yml").read_text(encoding="utf-8")
API = "api: {name: docker.io/langgenius/dify-api, digest: sha256:" + "a" * 64 + "}"


def dify(*edits: tuple[str, str]) -> dict[str, Any]:
    found = contract(*edits, text=TEXT).sites["hq"]["dify"]
    assert found is not None
    return dict(found)


def hosts(*edits: tuple[str, str]) -> dict[str, list[str]]:
    return {service: [member["name"] for member in members] for service, members in dify(*edits)["services"].items()}


def test_every_host_of_the_group_runs_everything_unless_somebody_says_otherwise() -> None:
    both = ["hq-app1", "hq-app2"]
    assert hosts() == {"api": both, "websocket": both, "worker": both, "beat": both, "plugin_daemon": both, "web": both}


def test_services_follow_the_one_that_they_belong_to() -> None:
    assert hosts(("      images:", "      api: [hq-app1]\n      worker: [hq-app2]\n      web: [hq-app2]\n      images:")) == {
        "api": ["hq-app1"],
        "websocket": ["hq-app1"],
        "plugin_daemon": ["hq-app1"],
        "worker": ["hq-app2"],
        "beat": ["hq-app2"],
        "web": ["hq-app2"],
    }


def test_hosts_come_in_the_order_of_the_file_and_not_in_that_of_the_list() -> None:
    assert hosts(("      images:", "      beat: [hq-app2, hq-app1]\n      images:"))["beat"] == ["hq-app1", "hq-app2"]


def test_an_image_of_a_registry_is_run_by_its_digest() -> None:
    assert dify()["images"]["api"] == {
        "reference": "docker.io/langgenius/dify-api@sha256:" + "a" * 64,
        "name": "docker.io/langgenius/dify-api",
        "digest": "sha256:" + "a" * 64,
        "archive": None,
        "sha256": None,
    }


@pytest.mark.parametrize(
    ("images", "archive"),
    [
        ("", "/somewhere/images/api.tar"),
        ("    images: {archives: ../of-the-bank}\n", "/of-the-bank/api.tar"),
        ("    images: {archives: /srv/images}\n", "/srv/images/api.tar"),
    ],
)
def test_an_image_of_an_archive_is_run_by_the_archives_checksum(images: str, archive: str) -> None:
    loaded = "api: {name: docker.io/langgenius/dify-api, archive: api.tar, sha256: " + "b" * 64 + "}"
    assert dify(("    dify:\n", f"{images}    dify:\n"), (API, loaded))["images"]["api"] == {
        "reference": "localhost/dify-api:sha256-" + "b" * 64,
        "name": "docker.io/langgenius/dify-api",
        "digest": None,
        "archive": archive,
        "sha256": "b" * 64,
    }


def test_a_mirror_is_told_to_the_engine_and_changes_no_name() -> None:
    site = contract(("    dify:\n", "    images: {mirror: registry.bank.example:5000/hub}\n    dify:\n"), text=TEXT).sites["hq"]
    assert site["images"] == {"mirror": "registry.bank.example:5000/hub"}
    assert site["dify"] is not None
    assert site["dify"]["images"]["api"]["reference"].startswith("docker.io/langgenius/dify-api@")
