"""An image that came from an archive runs as a unit; one that is not what was declared never comes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.testing import changed, host_variables, rerun

QUADLET = """\
[Container]
Image={image}
Pull=never
Network=none
Exec=/usr/bin/env

[Service]
Type=oneshot
RemainAfterExit=yes
"""


@pytest.fixture
def image(on: Any) -> str:
    names = json.loads(on("engine").check_output("podman images --format json"))
    return str(next(name for entry in names for name in entry["Names"] if name.startswith("localhost/tool:sha256-")))


def test_the_image_runs_as_a_unit_and_writes_to_the_journal(on: Any, image: str) -> None:
    host = on("engine")
    host.check_output(f"printf %s '{QUADLET.format(image=image)}' > /etc/containers/systemd/tool.container")
    try:
        host.check_output("systemctl daemon-reload && systemctl restart tool.service")
        written = host.check_output("journalctl --no-pager --output=cat --boot CONTAINER_NAME=systemd-tool")
        assert "PATH=" in written
        # The engine goes through a proxy; what runs in it is not told.
        assert "proxy.engine.test" not in written
    finally:
        host.run("systemctl stop tool.service; rm /etc/containers/systemd/tool.container; systemctl daemon-reload")


def test_no_other_account_reads_a_containers_environment_also_after_a_boot(on: Any, image: str) -> None:
    host = on("engine")
    secret = "a-password-of-this-test"
    unit = f"[Container]\nImage={image}\nPull=never\nNetwork=none\nEnvironmentFile=/etc/tool.env\nExec=/usr/bin/sleep 600\nStopTimeout=1\n"
    host.check_output(f"install -m 600 /dev/null /etc/tool.env && echo PASSWORD={secret} > /etc/tool.env")
    host.check_output(f"printf %s '{unit}' > /etc/containers/systemd/tool.container")
    found = f"runuser -u nobody -- grep --recursive --files-with-matches --text --fixed-strings --devices=skip --no-messages {secret} "
    try:
        host.check_output("systemctl daemon-reload && systemctl restart tool.service")
        # As a boot finds it where the directory was made before podman's first use.
        host.check_output("chmod 755 /var/lib/containers/storage")
        assert "/var/lib/containers/storage/db.sql" in host.run(found + "/var/lib/containers").stdout, "what is protected is no longer there"
        host.check_output("systemd-tmpfiles --create --boot")
        assert host.run(found + "/var/lib/containers /run /etc").stdout == ""
        host.check_output(f"echo {secret} > /run/readable")
        assert host.run(found + "/var/lib/containers /run /etc").stdout.split() == ["/run/readable"]
    finally:
        host.run("systemctl stop tool.service; rm -f /etc/containers/systemd/tool.container /etc/tool.env /run/readable; systemctl daemon-reload")


def test_the_archive_is_gone_and_the_image_stays(on: Any, image: str) -> None:
    assert on("engine").run(f"podman image exists {image}").rc == 0
    assert not on("engine").file("/var/lib/sovereign/images").exists


def test_an_archive_that_is_another_is_refused_before_podman_sees_it(on: Any) -> None:
    before = on("engine").check_output("podman images --quiet")
    (declared,) = host_variables()["engine"]["container_engine_images"]
    wrong = {**declared, "reference": "localhost/tool:sha256-" + "0" * 64, "sha256": "0" * 64, "archive": _archive()}
    run = rerun("--tags=container_engine", container_engine_images=[wrong])
    assert run.returncode != 0
    assert "its SHA-256 is" in " ".join(run.stdout.split())
    assert on("engine").check_output("podman images --quiet") == before
    on("engine").check_output("rm -r /var/lib/sovereign/images")


def test_images_that_have_no_room_are_refused_before_any_is_brought(on: Any) -> None:
    (declared,) = host_variables()["engine"]["container_engine_images"]
    name, digest = "registry.engine.test/large", "sha256:" + "0" * 64
    large = {"reference": f"{name}@{digest}", "name": name, "digest": digest, "archive": "", "sha256": ""}
    run = rerun("--tags=container_engine", container_engine_images=[declared, large], container_engine_pulled_mb={"large": 99_000_000, "other": 1})
    assert run.returncode != 0
    assert "Images that are missing (1) want " in " ".join(run.stdout.split())
    assert "Pull and load them" not in run.stdout


def _archive() -> str:
    return str(host_variables()["engine"]["cluster"]["state_dir"]) + "/images/tool.tar"


def test_a_name_without_digest_or_checksum_is_refused() -> None:
    image = {
        "reference": "docker.io/langgenius/dify-api:1.16.0",
        "name": "docker.io/langgenius/dify-api",
        "archive": None,
        "sha256": None,
        "digest": None,
    }
    run = rerun("--tags=container_engine", container_engine_images=[image])
    assert run.returncode != 0
    assert "neither a digest nor an archive" in " ".join(run.stdout.split())


def test_registries_are_asked_through_the_mirror_and_short_names_are_nobodys(on: Any) -> None:
    host = on("engine")
    registries = json.loads(host.check_output("podman info --format '{{ json .Registries }}'"))
    assert registries["registry.engine.test"]["Location"] == "mirror.engine.test:5000/hub"
    refused = host.run("podman pull --quiet tool")
    assert refused.rc != 0
    assert "short-name" in refused.stderr or "unqualified" in refused.stderr


def test_nobody_offers_an_api(on: Any) -> None:
    assert on("engine").check_output("systemctl is-active podman.socket podman-auto-update.timer; true").split() == ["inactive", "inactive"]


def test_what_the_package_has_started_is_stopped_also_after_a_run_that_was_cut_once_it_had_masked_it(on: Any) -> None:
    host = on("engine")
    host.check_output("rm /etc/systemd/system/podman.socket && systemctl daemon-reload && systemctl start podman.socket")
    # As the run writes it.
    host.check_output("install -m 644 /dev/null /etc/systemd/system/podman.socket")
    run = "--tags=container_engine_configure,container_engine_service"
    assert [changed(rerun(run))["engine"] for _ in range(2)] == [1, 0]
    assert host.check_output("systemctl is-active podman.socket; true") == "inactive"
