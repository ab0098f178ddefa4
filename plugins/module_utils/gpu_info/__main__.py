# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Print what GPUs this host has, as JSON: for a host that Ansible does not reach yet."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from ansible_collections.sovereign.dify.plugins.module_utils.gpu_info.host import gather

if __name__ == "__main__":
    json.dump(asdict(gather()), sys.stdout, indent=2)
    sys.stdout.write("\n")
