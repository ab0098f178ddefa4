"""S3 as applications use it: programs that run on the client's host, with boto3, through the proxy on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
CLUSTER = "mol-object-storage"
ADDRESS = {"s3a": "198.18.57.11", "s3b": "198.18.57.12", "s3c": "198.18.57.13"}
PORT = 6280
CA = "/etc/sovereign/pki/ca.crt"
CERTIFICATE = f"--cacert {CA} --cert /etc/sovereign/pki/host.crt --key /etc/sovereign/pki/host.key"

# No attempt but the first: what is seen is what the service does.
PRELUDE = """
import json, sys, threading, time, urllib.request
import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
job = json.load(sys.stdin)

def client(user="dify", secret=None, endpoint="http://127.0.0.1:9000"):
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30)
    return boto3.client("s3", endpoint_url=endpoint, verify=job["ca"], region_name="us-east-1", aws_access_key_id=user,
                        aws_secret_access_key=secret or job["secrets"][user], config=config)

def refusal(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""
"""


def secret(user: str) -> str:
    """Secret key of a user, as its owner was given it."""
    return (SCENARIO / "inventory/.state/secrets/object_storage" / user).read_text().strip()


def begin(program: str, **job: Any) -> subprocess.Popen[str]:
    """Start a program on the client's host."""
    command = ["docker", "exec", "--interactive", f"{CLUSTER}-client", "python3", "-c", PRELUDE + program]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdin
    run.stdin.write(json.dumps({"ca": CA, "secrets": {user: secret(user) for user in ("dify", "backups")}, **job}))
    run.stdin.close()
    run.stdin = None
    return run


def result(run: subprocess.Popen[str], timeout: float = 400) -> Any:
    """Give what a program printed, as JSON."""
    out, _ = run.communicate(timeout=timeout)
    assert run.returncode == 0, out
    return json.loads(out)


def call(program: str, **job: Any) -> Any:
    """Run a program on the client's host; give what it printed, as JSON."""
    return result(begin(program, **job))


def until(true: Callable[[], bool], seconds: float) -> float:
    """Wait until something is so; give the seconds that it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        time.sleep(0.5)
    return time.monotonic() - begun
