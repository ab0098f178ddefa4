# Ansible managed
"""Have a member that is about to start follow whom the other members' Sentinels call the master.

Its own configuration says who led when it went away. A former master that started by it would call itself the master until a Sentinel
corrects it, ten seconds in which clients may be sent to it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from redis_client import leader, passwords, views

REPLICAOF = re.compile(r"^replicaof .*\n?", re.MULTILINE)


def following(configuration: str, own: str, master: str, port: int) -> str:
    """Give a configuration that follows the master; or follows nobody, if that is the member itself."""
    rest = REPLICAOF.sub("", configuration)
    if master == own:
        return rest
    return f"{rest.rstrip()}\nreplicaof {master} {port}\n"


def main(own: str, port: int, sentinel_port: int, name: str, *others: str) -> None:
    """Ask, and write the answer down. Where nobody answers, the configuration stays as it is."""
    path = Path("/var/lib/redis/redis.conf")
    master = leader(views(others, sentinel_port, name, passwords(Path("/etc/redis/admin.password"))))
    if master is None:
        return
    before = path.read_text()
    followed = re.findall(r"^replicaof (\S+)", before, re.MULTILINE)[-1:]
    if followed != ([] if master == own else [master]):
        partial, owner = path.with_suffix(".partial"), path.stat()
        partial.write_text(following(before, own, master, port))
        partial.chmod(0o640)
        os.chown(partial, owner.st_uid, owner.st_gid)
        partial.replace(path)
        print(f"the Sentinels say that {master} leads: {'so do I' if master == own else 'I follow'}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
