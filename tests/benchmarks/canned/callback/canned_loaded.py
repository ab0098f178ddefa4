# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback: has Ansible load the connection of the same tests once, before it forks, as the inventory plugin has it load the real one."""

from __future__ import annotations

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import connection_loader

DOCUMENTATION = """
name: canned_loaded
type: aggregate
short_description: Load the connection canned before Ansible forks
description:
  - Without it, each task on each host would load the connection anew, which takes 16 ms of processor time and says nothing of the platform.
requirements: [a connection of the name canned]
"""


class CallbackModule(CallbackBase):
    """Loads."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "canned_loaded"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Load it."""
        super().__init__()
        connection_loader.get_with_context("canned", class_only=True)
