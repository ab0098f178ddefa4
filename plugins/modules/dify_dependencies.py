#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: refuse to go on while a service that Dify needs does not let it in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_dependencies
short_description: Ask whether the services that Dify needs let it in
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Logs in to PostgreSQL, Redis, RabbitMQ and object storage as Dify does, and looks for room on this host. Changes nothing.
  - Fails with a sentence for each that does not serve, and with the last lines of the journal of what stands between.
  - One that does not answer is asked again for O(timeout) seconds. One that refuses the user is not.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
  platform: {platforms: posix}
requirements: [psycopg2, amqp, curl]
options:
  postgresql:
    description: Databases, each by the words of libpq's connection string.
    type: list
    elements: dict
    default: []
    suboptions:
      host: {description: Name that its certificate bears., type: str, required: true}
      hostaddr: {description: Address to connect to instead., type: str}
      port: {description: Port., type: int, default: 5432}
      dbname: {description: Database., type: str, required: true}
      user: {description: User., type: str, required: true}
      password: {description: Password., type: str, required: true}
      sslmode: {description: How TLS is used., type: str, default: verify-full}
      sslrootcert: {description: File of the authorities., type: str}
      sslcertmode: {description: Whether a certificate of the client's is sent., type: str}
  redis:
    description: Redis, without TLS.
    type: dict
    suboptions: &login
      host: {description: Name or address., type: str, required: true}
      port: {description: Port., type: int, required: true}
      user: {description: User., type: str, required: true}
      password: {description: Password., type: str, required: true}
  rabbitmq:
    description: RabbitMQ, without TLS.
    type: dict
    suboptions:
      <<: *login
      vhost: {description: Virtual host., type: str, required: true}
  s3:
    description: Object storage.
    type: dict
    suboptions:
      endpoint: {description: URL without a path., type: str, required: true}
      region: {description: Region., type: str, required: true}
      addressing: {description: Where the bucket's name stands., type: str, choices: [path, host], default: path}
      access_key: {description: Key., type: str, required: true}
      secret_key: {description: Its secret., type: str, required: true}
      buckets: {description: Buckets that must be there., type: list, elements: str, required: true}
  free_mb:
    description: Megabytes that must be free, by directory.
    type: dict
    default: {}
  journal_unit:
    description: Unit that stands between; the end of its journal is shown if a service does not answer.
    type: str
    default: ""
  timeout:
    description: How long to wait for services that do not answer, in seconds.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Refuse to go on without the services that Dify needs
  sovereign.dify.dify_dependencies:
    postgresql: [{host: 127.0.0.1, port: 5432, dbname: dify, user: dify, password: "{{ lookup('sovereign.dify.secret', 'patroni/dify') }}"}]
    rabbitmq: {host: 127.0.0.1, port: 5672, vhost: dify, user: dify, password: "{{ lookup('sovereign.dify.secret', 'rabbitmq/dify') }}"}
    free_mb: {/var/lib/containers: 512}
    journal_unit: service_proxy.service
"""

RETURN = r"""
asked: {description: What was asked., returned: success, type: list, elements: str, sample: ["Redis (127.0.0.1:6379, user dify)"]}
"""

import socket
import traceback
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sovereign.dify.plugins.module_utils.dify_dependencies import Dependency, RefusedError, UnreachableError, faults, shortages
from ansible_collections.sovereign.dify.plugins.module_utils.redis_client import Connection, RedisError

try:
    import amqp
    import psycopg2

    IMPORT_ERROR = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

Json = dict[str, Any]
PATIENCE = 10
LINES = 8


def telling(lines: list[str]) -> list[str]:
    """Choose the lines of HAProxy's journal that say who was found down, and why; all, if none does."""
    marks = (" is DOWN", "failed, reason:", "no server available")
    return [line for line in lines if any(mark in line for mark in marks)] or lines


def ask_postgresql(words: Json) -> None:
    """Log in to a database, and ask whether it takes writes."""
    try:
        connection = psycopg2.connect(connect_timeout=PATIENCE, **{word: value for word, value in words.items() if value is not None})
    except psycopg2.OperationalError as error:
        # libpq gives no code for what fails before there is a session.
        final = ("authentication failed", "does not exist", "pg_hba.conf", "permission denied", "is not permitted to log in")
        raise (RefusedError if any(mark in str(error) for mark in final) else UnreachableError)(str(error)) from error
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            if cursor.fetchone()[0]:
                msg = "it is a replica, and takes no writes"
                raise UnreachableError(msg)
    finally:
        connection.close()


def ask_redis(server: Json) -> None:
    """Log in to Redis, and ask for a sign of life: the proxy in between gives a connection to nobody but the master."""
    try:
        with Connection.tcp(server["host"], server["port"], server["user"], [server["password"]], timeout=PATIENCE) as connection:
            connection("PING")
    except RedisError as error:
        final = str(error).startswith(("WRONGPASS", "NOAUTH", "NOPERM"))
        raise (RefusedError if final else UnreachableError)(str(error)) from error
    except OSError as error:
        raise UnreachableError(str(error)) from error


def ask_rabbitmq(server: Json) -> None:
    """Log in to a virtual host of RabbitMQ."""
    try:
        with amqp.Connection(
            host=f"{server['host']}:{server['port']}",
            userid=server["user"],
            password=server["password"],
            virtual_host=server["vhost"],
            connect_timeout=PATIENCE,
            read_timeout=PATIENCE,
            write_timeout=PATIENCE,
        ) as connection:
            connection.connect()
    except (amqp.exceptions.AccessRefused, amqp.exceptions.NotAllowed) as error:
        raise RefusedError(str(error)) from error
    except (amqp.exceptions.AMQPError, OSError) as error:
        raise UnreachableError(str(error) or type(error).__name__) from error


def ask_s3(module: AnsibleModule, server: Json, bucket: str) -> None:
    """Ask for a bucket by a signed request."""
    scheme, dummy, host = server["endpoint"].rstrip("/").partition("://")
    url = f"{scheme}://{host}/{bucket}" if server["addressing"] == "path" else f"{scheme}://{bucket}.{host}/"
    login = f"{server['access_key']}:{server['secret_key']}".replace("\\", "\\\\").replace('"', '\\"')
    # By its standard input: arguments are everybody's to read.
    settings = f'user = "{login}"\naws-sigv4 = "aws:amz:{server["region"]}:s3"\nurl = "{url}"\n'
    command = ["curl", "--disable", "--silent", "--show-error", "--noproxy", "*", "--head", "--max-time", str(PATIENCE), "--config", "-"]
    code, printed, complaint = module.run_command([*command, "--output", "/dev/null", "--write-out", "%{http_code}"], data=settings)
    if code:
        raise UnreachableError(complaint.strip())
    if printed in {"401", "403"}:
        msg = f"bucket {bucket}: status {printed}"
        raise RefusedError(msg)
    if not printed.startswith("2"):
        msg = f"bucket {bucket}: status {printed}{', there is no such bucket' if printed == '404' else ''}"
        raise UnreachableError(msg)


def dependencies(module: AnsibleModule) -> list[Dependency]:
    """List what is to be asked."""
    given = module.params
    found = []
    for words in given["postgresql"]:
        where = f"{words['hostaddr'] or words['host']}:{words['port']}"
        name = f"PostgreSQL ({where}, database {words['dbname']}, user {words['user']})"
        found.append(Dependency(name, partial(ask_postgresql, words), "patroni"))
    if redis := given["redis"]:
        found.append(Dependency(f"Redis ({redis['host']}:{redis['port']}, user {redis['user']})", partial(ask_redis, redis), "redis"))
    if rabbitmq := given["rabbitmq"]:
        name = f"RabbitMQ ({rabbitmq['host']}:{rabbitmq['port']}, virtual host {rabbitmq['vhost']}, user {rabbitmq['user']})"
        found.append(Dependency(name, partial(ask_rabbitmq, rabbitmq), "rabbitmq"))
    if s3 := given["s3"]:
        for bucket in s3["buckets"]:
            name = f"Object storage ({s3['endpoint']}, bucket {bucket}, access key {s3['access_key']})"
            found.append(Dependency(name, partial(ask_s3, module, s3, bucket), "object_storage"))
    return found


def main() -> None:
    """Ask, and fail with what was found."""
    login = {
        "host": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "user": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    database = {
        "host": {"type": "str", "required": True},
        "hostaddr": {"type": "str"},
        "port": {"type": "int", "default": 5432},
        "dbname": {"type": "str", "required": True},
        "user": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "sslmode": {"type": "str", "default": "verify-full"},
        "sslrootcert": {"type": "str"},
        "sslcertmode": {"type": "str"},
    }
    s3 = {
        "endpoint": {"type": "str", "required": True},
        "region": {"type": "str", "required": True},
        "addressing": {"type": "str", "choices": ["path", "host"], "default": "path"},
        "access_key": {"type": "str", "required": True, "no_log": False},
        "secret_key": {"type": "str", "required": True, "no_log": True},
        "buckets": {"type": "list", "elements": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "postgresql": {"type": "list", "elements": "dict", "default": [], "options": database},
            "redis": {"type": "dict", "options": login},
            "rabbitmq": {"type": "dict", "options": {**login, "vhost": {"type": "str", "required": True}}},
            "s3": {"type": "dict", "options": s3},
            "free_mb": {"type": "dict", "default": {}},
            "journal_unit": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2, amqp"), exception=IMPORT_ERROR)
    found = shortages({name: int(megabytes) for name, megabytes in module.params["free_mb"].items()})
    wanted = dependencies(module)
    silent = faults(wanted, module.params["timeout"])
    found += silent
    if not found:
        module.exit_json(changed=False, asked=[dependency.name for dependency in wanted])
    message = f"Nothing has been changed on {socket.gethostname()}: Dify could not work there.\n" + "\n".join(f"- {fault}" for fault in found)
    unit = module.params["journal_unit"]
    if silent and unit:
        lines = module.run_command(["journalctl", "--no-pager", "--output=short-iso", "--lines=500", f"--unit={unit}"])[1].strip().splitlines()
        shown = "\n".join(telling(lines)[-LINES:])
        message += f"\nThe end of the journal of {unit}, through which it reaches them:\n{shown}"
    module.fail_json(msg=message)


if __name__ == "__main__":
    main()
