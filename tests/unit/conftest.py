# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets tests import the collection by its full name, whatever the working directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

COLLECTIONS = Path(__file__).resolve().parents[2] / "collections"

# Before anything imports Ansible, which reads its configuration once; and before anything imports the collection, because Python's and Ansible's
# ways to find it do not mix in one process.
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
sys.path.insert(0, str(COLLECTIONS))

from ansible.plugins.loader import init_plugin_loader  # noqa: E402

init_plugin_loader()
