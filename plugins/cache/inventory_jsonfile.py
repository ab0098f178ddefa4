# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cache: JSON files, in a directory for each inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: inventory_jsonfile
short_description: JSON files, in a directory for each inventory
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Keeps facts like P(ansible.builtin.jsonfile#cache), in a directory for each inventory below the configured one. An inventory is what a run got
    by C(-i).
  - Hosts of one name in two inventories are different machines. With one directory for all, each would be given the facts of the other.
options:
  _uri:
    description: The directory below which the directories of inventories are made.
    required: true
    type: path
    env: [{name: ANSIBLE_CACHE_PLUGIN_CONNECTION}]
    ini: [{key: fact_caching_connection, section: defaults}]
  _prefix:
    description: What the names of the JSON files begin with.
    env: [{name: ANSIBLE_CACHE_PLUGIN_PREFIX}]
    ini: [{key: fact_caching_prefix, section: defaults}]
  _timeout:
    description: Seconds after which what is kept counts no longer. 0 stands for never.
    default: 86400
    type: integer
    env: [{name: ANSIBLE_CACHE_PLUGIN_TIMEOUT}]
    ini: [{key: fact_caching_timeout, section: defaults}]
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ansible import constants, context
from ansible.plugins.cache.jsonfile import CacheModule as JsonFiles


def directory_of(sources: Sequence[str]) -> str:
    """Give the name of the directory for an inventory: what a reader knows it by, and what tells it from another of that name.

    Args:
        sources: What the run was given by ``-i``: paths, or hosts with a comma between them.
    """
    resolved = [source if "," in source else str(Path(source).resolve()) for source in sources]
    first = Path(resolved[0]) if resolved else Path("none")
    known = first.parent.name if first.is_file() else first.name
    return f"{re.sub('[^A-Za-z0-9.-]+', '_', known)[:40]}-{hashlib.sha256(chr(0).join(resolved).encode()).hexdigest()[:8]}"


class CacheModule(JsonFiles):
    """JSON files, in a directory for each inventory."""

    def _get_cache_connection(self, source: str) -> str:
        """Give the directory, which Ansible's own class then makes."""
        # Programs that use Ansible as a library may have no command line.
        sources = context.CLIARGS.get("inventory") or constants.config.get_config_value("DEFAULT_HOST_LIST")
        configured = super()._get_cache_connection(source)  # type: ignore[no-untyped-call]
        return str(Path(configured) / directory_of(sources))
