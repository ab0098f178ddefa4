# SPDX-License-Identifier: GPL-3.0-or-later
"""The one scale for the clearance of sites and the classification of models."""

from __future__ import annotations

import enum


class Level(enum.IntEnum):
    """Higher needs more trust."""

    PUBLIC = 0
    INTERNAL = 1
    RESTRICTED = 2

    def __str__(self) -> str:
        """Write as the file does."""
        return self.name.lower()


def permits(clearance: Level | None, classification: Level | None) -> bool:
    """Tell whether a site may hold or call a model. What could not be read accuses nobody: its own mistake is already reported."""
    return clearance is None or classification is None or clearance >= classification
