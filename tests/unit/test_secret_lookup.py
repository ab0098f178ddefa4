"""A secret is generated once, kept, read from a vault, and never leaves its directory."""

# Of Ansible's own classes:
# mypy: disable-error-code="no-untyped-call, list-item"

from __future__ import annotations

import base64
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template


def secret(state_dir: Path, name: str, loader: DataLoader | None = None, variables: dict[str, Any] | None = None, **options: str | int) -> str:
    loader = loader or DataLoader()
    plugin = lookup_loader.get("sovereign.dify.secret", loader=loader, templar=Templar(loader=loader))
    return str(plugin.run([name], variables or {}, state_dir=str(state_dir), **options)[0])


def test_it_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    first = secret(tmp_path, "area/name", prefix="sk-")
    assert first.startswith("sk-")
    assert len(first) == 43 + len("sk-")
    assert secret(tmp_path, "area/name", prefix="other-", length=5) == first
    kept = tmp_path / "secrets/area/name"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in kept.parent.iterdir()] == ["name"]


def test_two_secrets_differ(tmp_path: Path) -> None:
    assert secret(tmp_path, "one") != secret(tmp_path, "two")


def test_base64_is_what_wireguard_wants(tmp_path: Path) -> None:
    assert len(base64.b64decode(secret(tmp_path, "psk", encoding="base64", length=32), validate=True)) == 32


def test_processes_that_race_get_the_same(tmp_path: Path) -> None:
    with ProcessPoolExecutor(8) as pool:
        results = list(pool.map(secret, [tmp_path] * 32, ["raced"] * 32))
    assert len(set(results)) == 1


def test_check_mode_keeps_nothing(tmp_path: Path) -> None:
    assert secret(tmp_path, "name", variables={"ansible_check_mode": True})
    assert not (tmp_path / "secrets").exists()


def test_a_vaulted_secret_is_read_with_the_vaults_password_and_refused_without(tmp_path: Path) -> None:
    password = VaultSecret(b"open sesame")
    kept = tmp_path / "secrets/name"
    kept.parent.mkdir()
    kept.write_bytes(VaultLib([("default", password)]).encrypt("hidden", password))
    loader = DataLoader()
    loader.set_vault_secrets([("default", password)])
    assert secret(tmp_path, "name", loader=loader) == "hidden"
    with pytest.raises(AnsibleError):
        secret(tmp_path, "name")


@pytest.mark.parametrize("name", ["../escape", "/etc/shadow", "a/../../b", "", "a/.hidden"])
def test_names_that_leave_the_directory_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AnsibleLookupError, match="no name of a secret"):
        secret(tmp_path, name)


def test_a_link_that_leaves_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "elsewhere").write_text("not ours\n")
    (tmp_path / "secrets/name").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AnsibleLookupError, match="symbolic link"):
        secret(tmp_path, "name")


def test_an_empty_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/name").touch()
    with pytest.raises(AnsibleLookupError, match="is empty"):
        secret(tmp_path, "name")


def test_without_a_place_to_keep_it_the_error_says_what_to_give() -> None:
    loader = DataLoader()
    plugin = lookup_loader.get("sovereign.dify.secret", loader=loader, templar=Templar(loader=loader))
    with pytest.raises(AnsibleLookupError, match=r"cluster\.state_dir"):
        plugin.run(["name"], {})


def test_a_former_secret_is_given_beside_the_new_one_to_who_can_accept_two(tmp_path: Path) -> None:
    former = secret(tmp_path, "redis/app")
    kept = tmp_path / "secrets/redis/app"
    kept.rename(kept.with_name("app.retiring"))
    loader = DataLoader()
    plugin = lookup_loader.get("sovereign.dify.secret", loader=loader, templar=Templar(loader=loader))
    new = secret(tmp_path, "redis/app")
    assert new != former
    assert plugin.run(["redis/app"], {}, state_dir=str(tmp_path), retiring=True) == [new, former]
    assert plugin.run(["redis/app"], {}, state_dir=str(tmp_path)) == [new]
    kept.with_name("app.retiring").unlink()
    assert plugin.run(["redis/app"], {}, state_dir=str(tmp_path), retiring=True) == [new]


def test_the_ending_of_former_secrets_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError, match="no name of a secret"):
        secret(tmp_path, "redis/app.retiring")


def test_several_come_as_a_dictionary_whose_making_fails_as_a_whole(tmp_path: Path) -> None:
    loader = DataLoader()
    template = (
        "{{ lookup('sovereign.dify.secret', *(users | difference(given) | map('regex_replace', '^', 'area/')), by_name=true, "
        "prefix='sk-{name}-', state_dir=state_dir, retiring=retiring) | combine(given) }}"
    )

    def found(users: list[str], given: dict[str, str] | None = None, retiring: bool = False) -> Any:
        variables = {"users": users, "given": given or {}, "state_dir": str(tmp_path), "retiring": retiring}
        return Templar(loader=loader, variables=variables).template(trust_as_template(template))

    first = found(["one", "two"])
    assert {name: value[:7] for name, value in first.items()} == {"one": "sk-one-", "two": "sk-two-"}
    assert found(["two", "one", "three"], {"three": "given"}) == {"two": first["two"], "one": first["one"], "three": "given"}
    assert found([]) == {}
    (tmp_path / "secrets/area/two.retiring").write_text("former\n")
    assert found(["one", "two"], retiring=True) == {"one": [first["one"]], "two": [first["two"], "former"]}
    # In a loop that fills a dictionary, ansible-core 2.19 to 2.21 drop this failure, and the key of the next client is the answer.
    (tmp_path / "secrets/area/one").write_text("")
    with pytest.raises(AnsibleError, match="area/one is empty; put the secret into it"):
        found(["one", "two"])
