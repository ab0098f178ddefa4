#!/usr/bin/python
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module: buckets of an object storage."""

from __future__ import annotations

DOCUMENTATION = r"""
module: s3_buckets
short_description: Make buckets of an object storage
version_added: 0.1.0
author: The sovereign.dify maintainers (@sovereign-dify)
description:
  - Makes buckets that are missing, each as its owner, in one call. Buckets that are there stay as they are, and none is ever removed.
  - Speaks S3 by path, as object storages of one's own do.
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  platform: {platforms: posix}
requirements: [boto3]
options:
  endpoint:
    description: URL of the service.
    type: str
    required: true
  region:
    description: Region that requests are signed for.
    type: str
    required: true
  buckets:
    description: The buckets.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name., type: str, required: true}
      access_key: {description: Access key of the owner., type: str, required: true}
      secret_key: {description: Secret key of the owner., type: str, required: true}
  timeout:
    description: Longest wait for the service, in seconds.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Make the bucket of backups
  sovereign.dify.s3_buckets:
    endpoint: http://127.0.0.1:9000
    region: us-east-1
    buckets: [{name: backups, access_key: pgbackrest, secret_key: "{{ secret_key }}"}]
"""

RETURN = r"""
made: {description: Buckets that were missing., returned: always, type: list, elements: str}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    boto3 = None


def missing(client: Any, name: str) -> bool:  # noqa: ANN401
    """Tell whether a bucket is not there; raise whatever else is wrong."""
    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return True
        raise
    return False


def main() -> None:
    """Look, make, report."""
    bucket_options = {
        "name": {"type": "str", "required": True},
        "access_key": {"type": "str", "required": True, "no_log": False},
        "secret_key": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "buckets": {"type": "list", "elements": "dict", "required": True, "options": bucket_options},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    if boto3 is None:
        module.fail_json(msg=missing_required_lib("boto3"))
    settings = Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=15, retries={"max_attempts": 1})
    deadline = time.monotonic() + module.params["timeout"]
    made: list[str] = []
    for bucket in module.params["buckets"]:
        session = boto3.session.Session(bucket["access_key"], bucket["secret_key"], region_name=module.params["region"])
        client = session.client("s3", endpoint_url=module.params["endpoint"], config=settings)
        while True:
            try:
                if missing(client, bucket["name"]):
                    if not module.check_mode:
                        client.create_bucket(Bucket=bucket["name"])
                    made.append(bucket["name"])
                break
            except (BotoCoreError, ClientError) as error:
                # A service that has just been started may still wait for its other members.
                status = error.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(error, ClientError) else 503
                if status < 500 or time.monotonic() > deadline:
                    module.fail_json(msg=f"Bucket {bucket['name']}: {error}", made=made, changed=bool(made))
            time.sleep(1)
    module.exit_json(changed=bool(made), made=made, diff={"before": "", "after": "".join(f"bucket {name}\n" for name in made)})


if __name__ == "__main__":
    main()
