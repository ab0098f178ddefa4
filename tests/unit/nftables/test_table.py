"""Compare, apply, confirm, roll back: with a kernel and a systemd made of dictionaries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.nftables import table as module
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.kernel import Nft, NftError
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.table import RefusedError, RolledBackError, Table

NAME = "inet t"
GOOD = "table inet t {\n\tallow ssh\n}\n"
OTHER = "table inet t {\n\tallow nothing\n}\n"


def write(path: Path, text: str) -> None:
    path.write_text(text)


class Host:
    """Understands as much of nft, systemctl and systemd-run as is asked of them here: one block is one table, its text its listing."""

    def __init__(self) -> None:
        """Start without tables."""
        self.tables: dict[str, str] = {}
        self.timer: Path | None = None
        self.seconds = 0
        self.refuse = False

    def run(self, command: Sequence[str], text: str) -> tuple[int, str, str]:
        """Stand in for a Runner."""
        if command[0] == "systemctl":
            if command[1] == "stop":
                self.timer = None
            return (0 if command[-1].endswith(".timer") and self.timer else 3), "", ""
        if command[0] == "systemd-run":
            self.timer = Path(command[-1])
            self.seconds = int(next(word for word in command if word.startswith("--on-active")).split("=")[1].rstrip("s"))
            return 0, "", ""
        assert command[0] == "nft"
        if command[-1] == "tables":
            return 0, "".join(f"table {name}\n" for name in self.tables), ""
        if "list" in command:
            name = " ".join(command[-2:])
            return (0, self.tables[name], "") if name in self.tables else (1, "", "Error: No such file or directory")
        return self.load(text)

    def load(self, text: str) -> tuple[int, str, str]:
        """Do what `nft --file` does."""
        bad = next((number for number, line in enumerate(text.splitlines(), start=1) if "nonsense" in line), 0)
        if bad or self.refuse:
            return 1, "", f"/dev/stdin:{bad}:1-8: Error: syntax error"
        for line in text.splitlines():
            if deleted := re.fullmatch(r"delete table (.+)", line):
                del self.tables[deleted[1]]
            elif made := re.fullmatch(r"table (.+) \{\}", line):
                self.tables.setdefault(made[1], "")
        for name, body in re.findall(r"^table (\w+ \w+) \{\n(.*?)^\}$", text, flags=re.MULTILINE | re.DOTALL):
            self.tables[name] = f"table {name} {{\n{body}}}\n"
        return 0, "", ""

    def wait(self) -> None:
        """Let the timer go off."""
        assert self.timer
        self.load(self.timer.read_text())
        self.timer = None


class World:
    """A host with a table, its sources and its boot file."""

    def __init__(self, directory: Path) -> None:
        """Start with nothing applied."""
        self.host = Host()
        self.source = directory / "base.nft"
        self.boot = directory / "boot.nft"
        self.table = Table(NAME, self.boot, directory / "pending", self.host.run, write)

    def present(self, text: str, seconds: int = 60, check: bool = False) -> module.Outcome:
        """Write the source and apply it."""
        self.source.write_text(text)
        return self.table.present([str(self.source)], seconds, check)

    def settle(self, text: str) -> None:
        """Apply and confirm."""
        self.present(text)
        self.table.confirm()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    @contextmanager
    def scratch(_: object) -> Iterator[Nft]:
        yield Nft(Host().run)

    monkeypatch.setattr(module, "scratch", scratch)
    return World(tmp_path)


def test_a_confirmed_change_stays_and_is_loaded_at_boot(world: World) -> None:
    outcome = world.present(GOOD, seconds=30)
    assert (outcome.changed, outcome.pending, outcome.before, outcome.after) == (True, True, "", GOOD)
    assert world.host.seconds == 30
    assert not world.boot.exists()
    assert world.table.confirm().changed
    assert world.host.timer is None
    assert world.host.tables[NAME] == GOOD
    assert GOOD in world.boot.read_text()
    assert not world.present(GOOD).changed


def test_an_unconfirmed_change_is_taken_back_and_a_late_confirmation_says_so(world: World) -> None:
    world.settle(GOOD)
    boot = world.boot.read_text()
    world.present(OTHER)
    assert world.host.tables[NAME] == OTHER
    world.host.wait()
    assert world.host.tables[NAME] == GOOD
    with pytest.raises(RolledBackError):
        world.table.confirm()
    assert world.boot.read_text() == boot
    assert world.host.tables[NAME] == GOOD


def test_a_first_table_that_nobody_confirms_goes_away(world: World) -> None:
    world.present(GOOD)
    world.host.wait()
    assert NAME not in world.host.tables


def test_the_way_back_leads_behind_every_unconfirmed_change(world: World) -> None:
    world.settle(GOOD)
    world.present(OTHER)
    world.present(OTHER.replace("nothing", "little"))
    world.host.wait()
    assert world.host.tables[NAME] == GOOD


def test_a_change_that_still_waits_is_reported_until_it_is_confirmed(world: World) -> None:
    world.present(GOOD)
    again = world.present(GOOD)
    assert (again.changed, again.pending) == (False, True)
    world.table.confirm()
    assert not world.present(GOOD).pending


def test_confirming_nothing_changes_nothing(world: World) -> None:
    assert not world.table.confirm().changed


def test_check_mode_compares_and_touches_nothing(world: World) -> None:
    world.settle(GOOD)
    boot = world.boot.read_text()
    outcome = world.present(OTHER, check=True)
    assert (outcome.changed, outcome.pending, outcome.before, outcome.after) == (True, False, GOOD, OTHER)
    assert world.host.tables[NAME] == GOOD
    assert world.boot.read_text() == boot
    assert world.host.timer is None


@pytest.mark.parametrize("edited", ["table inet t {\n\tallow everything\n}\n", None])
def test_a_table_that_somebody_changed_or_removed_is_drift(world: World, edited: str | None) -> None:
    world.settle(GOOD)
    if edited:
        world.host.tables[NAME] = edited
    else:
        del world.host.tables[NAME]
    outcome = world.present(GOOD)
    assert (outcome.changed, outcome.drift) == (True, True)
    assert world.host.tables[NAME] == GOOD


def test_changed_sources_are_no_drift(world: World) -> None:
    world.settle(GOOD)
    assert not world.present(OTHER).drift


def test_a_lost_boot_file_is_written_again_without_touching_the_table(world: World) -> None:
    world.settle(GOOD)
    world.boot.unlink()
    outcome = world.present(GOOD)
    assert (outcome.changed, outcome.pending) == (True, False)
    assert GOOD in world.boot.read_text()


def test_without_a_way_back_it_is_applied_for_good(world: World) -> None:
    assert not world.present(GOOD, seconds=0).pending
    assert world.host.timer is None
    assert GOOD in world.boot.read_text()


def test_what_nft_refuses_is_not_applied_and_is_named_by_file_and_line(world: World) -> None:
    world.settle(GOOD)
    with pytest.raises(RefusedError, match=rf"{re.escape(str(world.source))}:2:1: Error: syntax error"):
        world.present("table inet t {\nnonsense\n}\n")
    assert world.host.tables[NAME] == GOOD
    assert world.host.timer is None


@pytest.mark.parametrize(
    "text",
    [f"{GOOD}table ip other {{\n}}\n", f"{GOOD}delete table inet bystander\n", "table inet misspelt {\n}\n"],
    ids=["makes another table", "deletes another table", "makes only another table"],
)
def test_a_ruleset_that_touches_other_tables_is_refused(world: World, text: str) -> None:
    with pytest.raises(RefusedError, match="tables other than inet t"):
        world.present(text)
    assert world.host.tables == {}


def test_what_only_the_live_kernel_refuses_is_reported_and_leaves_a_way_back(world: World) -> None:
    world.settle(GOOD)
    world.host.refuse = True
    with pytest.raises(RefusedError):
        world.present(OTHER)
    assert world.host.tables[NAME] == GOOD


def test_absent_removes_the_table_and_its_boot_file_alone(world: World) -> None:
    world.host.tables["ip nat"] = "somebody else's"
    world.settle(GOOD)
    assert world.table.absent(check=True).changed
    assert NAME in world.host.tables
    assert world.table.absent().changed
    assert list(world.host.tables) == ["ip nat"]
    assert not world.boot.exists()
    assert not world.table.absent().changed


def test_a_listing_that_fails_for_another_reason_is_an_error() -> None:
    with pytest.raises(NftError, match="Operation not permitted"):
        Nft(lambda command, text: (1, "", "Error: Operation not permitted")).listing(NAME)
