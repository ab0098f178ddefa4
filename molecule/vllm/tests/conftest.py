"""Lets the tests of this scenario import the collection by its full name: they lay its plans beside what vLLM says."""

from __future__ import annotations

from tests.unit import conftest as unit

COLLECTIONS = unit.COLLECTIONS
