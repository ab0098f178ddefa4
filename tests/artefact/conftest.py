"""The collection as users of Galaxy or of an Automation Hub get it: built, and installed somewhere else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.testing import PROJECT


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which only the installed artefact is found, none of this tree's configuration."""
    build, home = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("collections")
    # Without this tree's configuration: with it, the collection counts as installed already, and nothing is done.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    environment = {**outside, "ANSIBLE_COLLECTIONS_PATH": str(home), "ANSIBLE_HOME": str(home / ".ansible"), "ANSIBLE_NOCOLOR": "1"}
    galaxy = ["ansible-galaxy", "collection"]
    subprocess.run([*galaxy, "build", "--output-path", str(build), str(PROJECT)], cwd=build, env=environment, check=True, capture_output=True)
    artefact = next(build.glob("sovereign-dify-*.tar.gz"))
    install = [*galaxy, "install", "--no-deps", "--offline", "--collections-path", str(home), str(artefact)]
    subprocess.run(install, cwd=build, env=environment, check=True, capture_output=True)
    return environment


@pytest.fixture(scope="session")
def content(installed: dict[str, str]) -> Path:
    """Directory of the installed collection."""
    return Path(installed["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections/sovereign/dify"
