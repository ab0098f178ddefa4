"""The generated reference is up to date, and says what the loader does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.inventory import cluster as plugin
from ansible_collections.sovereign.dify.plugins.module_utils.cluster import reference

from tests.unit.inventory.cases import EXAMPLE, HERE, PROJECT, mistakes

SCHEMA = json.loads((PROJECT / "docs/cluster.schema.json").read_text(encoding="utf-8"))
SHIPPED = sorted([*PROJECT.glob("inventories/*/cluster.yml"), *PROJECT.glob("molecule/*/inventory/cluster.yml"), *HERE.glob("good/*/*cluster.yml")])


@pytest.mark.parametrize("name", reference.FILES)
def test_generated_files_are_up_to_date(name: str) -> None:
    assert (PROJECT / name).read_text(encoding="utf-8") == reference.FILES[name](), "run python docs/generate.py"


def test_the_examples_load_and_are_the_same() -> None:
    assert mistakes(reference.EXAMPLE) == []
    assert reference.EXAMPLE in plugin.EXAMPLES


def test_the_plugins_options_are_the_keys_of_the_file() -> None:
    options = yaml.safe_load(reference.fragment().split('r"""')[1].split('"""')[0])["options"]
    assert set(options) == set(SCHEMA["properties"])
    assert {name for name, option in options.items() if option.get("required")} == set(SCHEMA["required"])
    assert set(options["models"]["suboptions"]) == set(SCHEMA["properties"]["models"]["additionalProperties"]["properties"])


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(PROJECT)))
def test_files_that_load_fit_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), SCHEMA)


def _unfit() -> list[tuple[str, dict[str, Any]]]:
    document = yaml.safe_load(EXAMPLE)
    edits: dict[str, Any] = {
        "unknown key": lambda spec: spec.update(extra=1),
        "missing key": lambda spec: spec.pop("domain"),
        "unknown level": lambda spec: spec["sites"]["hq"].update(clearance="secret"),
        "number out of range": lambda spec: spec["vpn"].update(port=70000),
        "number as text": lambda spec: spec["vpn"].update(port="51820"),
        "no address": lambda spec: spec["sites"]["hq"]["hosts"]["hq-gw1"].update(address="gw1.example.com"),
        "no network": lambda spec: spec["sites"]["hq"].update(networks=["198.18.1.0"]),
        "empty list": lambda spec: spec["models"]["faq"].update(hosts=[]),
        "misnamed model": lambda spec: spec["models"].update(FAQ=spec["models"].pop("faq")),
        "computed variable": lambda spec: spec["sites"]["hq"]["hosts"]["hq-gw1"].update(vars={"node": {}}),
    }
    cases = []
    for name, edit in edits.items():
        spec = json.loads(json.dumps(document))
        edit(spec)
        cases.append((name, spec))
    return cases


@pytest.mark.parametrize(("name", "spec"), _unfit(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_schema_and_the_loader_refuse_alike(name: str, spec: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, SCHEMA)
    assert mistakes(yaml.safe_dump(spec, sort_keys=False)), name
