# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of the modules that work on a member of a set of Redis servers."""

from __future__ import annotations


class ModuleDocFragment:
    """Which member of which set: the argument specification is ``MEMBER`` in ``module_utils/redis_member.py``."""

    DOCUMENTATION = r"""
options:
  address:
    description: This member's address.
    type: str
    required: true
  members:
    description: Addresses of all members, in an order that is the same everywhere.
    type: list
    elements: str
    required: true
  name:
    description: Name of the set at the Sentinels.
    type: str
    required: true
"""
