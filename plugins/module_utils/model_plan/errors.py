# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the planner says where it cannot plan."""

from __future__ import annotations


class PlanError(Exception):
    """A model or a wish that nobody can plan with: what is wrong where, and what would be right.

    A model that does not fit is no such error: the plan says so.
    """
