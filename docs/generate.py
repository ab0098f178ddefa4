#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the generated parts of the documentation, or with --check says which are out of date."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.reference import FILES  # noqa: E402
from capacity_page import page  # noqa: E402
from role_tables import readmes  # noqa: E402


def main() -> int:
    """Write the files, or compare them."""
    stale = []
    for name, write in [*FILES.items(), *readmes(), ("docs/capacity.md", page)]:
        path = ROOT / name
        text = write()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'out of date' if '--check' in sys.argv[1:] else 'written'}")
    return int(bool(stale) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
