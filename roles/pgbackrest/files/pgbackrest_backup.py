# Ansible managed
"""Back PostgreSQL up, if this host leads now: every member has the timer, and Patroni knows at each run who it is for."""

from __future__ import annotations

import argparse
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from datetime import datetime

from pgbackrest import next_kind, read


def leader(url: str, authority: str, seconds: float) -> str:
    """Give the name of who leads; wait for it, since a fail-over may be under way."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority))
    )
    end, reason = time.monotonic() + seconds, ""
    while True:
        try:
            with opener.open(f"{url}/cluster", timeout=10) as answer:
                members = json.load(answer)["members"]
            for member in members:
                if member["role"] == "leader" and member["state"] == "running":
                    return str(member["name"])
            reason = "nobody leads"
        except OSError as error:
            reason = f"Patroni does not answer at {url}: {error}"
        if time.monotonic() >= end:
            sys.exit(f"no backup was made: {reason}")
        time.sleep(5)


def main() -> None:
    """Ask, decide, back up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stanza", required=True)
    parser.add_argument("--name", required=True, help="of this member")
    parser.add_argument("--url", required=True, help="of this member's Patroni")
    parser.add_argument("--authority", required=True)
    parser.add_argument("--full-days", nargs="*", default=[])
    parser.add_argument("--wait", type=float, default=300)
    parser.add_argument("kind", choices=["auto", "full", "diff", "incr"])
    given = parser.parse_args()
    found = leader(given.url, given.authority, given.wait)
    if found != given.name:
        print(f"{found} leads and backs up; nothing to do here")
        return
    kind = given.kind
    if kind == "auto":
        command = ["pgbackrest", f"--stanza={given.stanza}", "--output=json", "info"]
        info = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        kind = next_kind(read(info.stdout, given.stanza).backups, datetime.now().astimezone(), given.full_days)
    command = ["pgbackrest", f"--stanza={given.stanza}", f"--type={kind}", "--log-level-console=info", "backup"]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
