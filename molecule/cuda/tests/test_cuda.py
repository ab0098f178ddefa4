"""Versions of CUDA beside each other. Its packages are stand-ins, whose compilers say their version."""

from __future__ import annotations

from typing import Any

import pytest

from lab.testing import rerun


@pytest.mark.parametrize(("at", "version"), [("cuda-12.9", "12.9"), ("cuda-13.0", "13.0"), ("cuda", "12.9")])
def test_each_version_lies_beside_the_others_and_the_default_is_the_declared_one(on: Any, at: str, version: str) -> None:
    assert f"release {version}," in on("gpu1").check_output(f"/usr/local/{at}/bin/nvcc --version")


def test_login_shells_find_the_default_and_upgrades_leave_it(on: Any) -> None:
    host = on("gpu1")
    assert "release 12.9," in host.check_output("bash -lc 'nvcc --version'")
    assert {"cuda-toolkit-12-9", "cuda-toolkit-13-0"} <= set(host.check_output("apt-mark showhold").split())


def test_a_version_that_the_driver_is_too_old_for_is_refused_with_both_numbers() -> None:
    run = rerun("--tags=preflight", "--limit=gpu1", cuda_versions=["12.9", "13.2", "12.7"], cuda_default="12.9", cuda_compatibility="exact")
    text = " ".join(run.stdout.split())
    assert run.returncode != 0
    assert "CUDA 13.2 needs driver 595.45.04 or newer, and this host has 580.95.05" in text
    assert "CUDA 12.7 is not known" in text
