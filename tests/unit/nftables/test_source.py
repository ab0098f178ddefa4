"""Files into one ruleset, and nft's complaints back to file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.source import files_of, holds, join, replacing


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.nft").write_text("table inet t {\n\tchain a {\n\t}\n}\n")
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "rules.d/b.nft").write_text("table inet t {\n\tchain a {\n\t\tfoo\n\t}\n}\n")
    (tmp_path / "rules.d/a.nft").write_text("# nothing\n")
    (tmp_path / "rules.d/b.nft.bak").write_text("not read")
    return tmp_path


def test_a_directory_stands_for_its_files_in_order(base: Path) -> None:
    found = files_of([str(base / "base.nft"), str(base / "rules.d")])
    assert [file.name for file in found] == ["base.nft", "a.nft", "b.nft"]


def test_a_missing_source_is_named(base: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        files_of([str(base / "nothing")])


def test_the_table_is_replaced_in_one_transaction(base: Path) -> None:
    text = join("inet t", files_of([str(base)])).text
    assert text.index("table inet t {}\n") < text.index("delete table inet t\n") < text.index("table inet t {\n\tchain a")


def test_no_table_at_all_is_a_replacement_too() -> None:
    assert replacing("inet t", "") == "table inet t {}\ndelete table inet t\n"


def test_a_complaint_names_file_and_line(base: Path) -> None:
    source = join("inet t", files_of([str(base / "base.nft"), str(base / "rules.d")]))
    number = next(number for number, line in enumerate(source.text.splitlines(), start=1) if "foo" in line)
    assert source.locate(f"/dev/stdin:{number}:3-5: Error: syntax error") == f"{base}/rules.d/b.nft:3:3: Error: syntax error"


def test_a_complaint_about_the_end_names_the_last_line(base: Path) -> None:
    source = join("inet t", files_of([str(base / "base.nft")]))
    assert source.locate("/dev/stdin:999:1-1: Error: unexpected end of file") == f"after {base}/base.nft:4: Error: unexpected end of file"


def test_a_ruleset_holds_a_file_only_as_it_was_joined(base: Path) -> None:
    files = files_of([str(base / "base.nft"), str(base / "rules.d")])
    ruleset = join("inet t", files).text
    for file in files:
        assert holds(ruleset, file, file.read_text())
        assert not holds(ruleset, file, file.read_text() + "more\n")
        assert not holds(ruleset, file.with_name("other.nft"), file.read_text())
    # What has lost its last lines is not what was joined.
    assert not holds(ruleset, files[-1], "table inet t {\n\tchain a {\n")
