# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have Ansible load the plugins that the roles use once, before it forks.

Each task on each host runs in a process of its own, forked from Ansible's. What that one has not loaded is loaded anew in each: a filter that
needs the library cryptography costs half a second of the controller's CPU, on each host, each time. Loaded before, it costs half a second in all.
Whatever cannot be loaded here is told where it is used.

What a process of a task has inherited, it neither changes nor gives back: its garbage collector is told to leave that alone. It would look through
all of it, again and again, and so copy it: about a quarter of what a run costs the controller.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from ansible.plugins import loader

COLLECTION = "sovereign.dify"
OTHERS: dict[str, tuple[str, ...]] = {
    "action": tuple(f"ansible.builtin.{name}" for name in ("command", "fail", "normal", "uri", "validate_argument_spec")),
    "connection": ("ansible.builtin.local", "ansible.builtin.ssh"),
    # One plugin of a file stands for all that are in it.
    "filter": (
        "ansible.builtin.b64encode",
        "ansible.builtin.union",
        "ansible.builtin.urlsplit",
        "community.crypto.x509_certificate_info",
        "community.general.counter",
        "community.general.keep_keys",
        "ansible.utils.ipaddr",
        "ansible.utils.ipwrap",
    ),
    "lookup": ("ansible.builtin.file", "ansible.builtin.template"),
    "test": ("ansible.builtin.exists", "ansible.builtin.version", "ansible.utils.in_any_network"),
}
"""Plugins of others that roles and playbooks use, by kind."""
OURS = ("action", "filter", "lookup")
"""Kinds of plugins of this collection that run in those processes."""


def preload() -> list[str]:
    """Load the plugins.

    Returns:
        Full names of those that are loaded now.
    """
    # Once more by a second source of hosts does no harm: there is nothing left to leave alone.
    os.register_at_fork(after_in_child=gc.freeze)
    here = Path(__file__).resolve().parents[1]
    loaded = []
    for kind in sorted({*OURS, *OTHERS}):
        own = sorted(path.stem for path in (here / kind).glob("*.py") if not path.stem.startswith("_")) if kind in OURS else []
        for name in (*OTHERS.get(kind, ()), *(f"{COLLECTION}.{stem}" for stem in own)):
            with suppress(Exception):
                if _get(getattr(loader, f"{kind}_loader"), kind, name):
                    loaded.append(name)
    # Imported by modules of others in the process that calls them, not when they are loaded.
    for library in ("cryptography.x509", "netaddr"):
        with suppress(ImportError):
            import_module(library)
    return loaded


def _get(plugins: loader.PluginLoader, kind: str, name: str) -> object:
    """Load one plugin: an instance of a filter or a test, which Ansible keeps, and the class of any other."""
    return plugins.get(name) if kind in ("filter", "test") else plugins.get_with_context(name, class_only=True).object
