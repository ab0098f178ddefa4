"""Where files and the tenants' keys are: a directory, or an S3 bucket by boto3."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError

from .settings import ROOT, SETTINGS


class Storage(Protocol):
    """Named contents."""

    def save(self, name: str, content: bytes) -> None:
        """Keep a content under a name."""

    def load(self, name: str) -> bytes:
        """Return a content; raise FileNotFoundError where there is none."""


class DirectoryStorage:
    """A directory of this node; other nodes see it only if it is shared."""

    def __init__(self, root: Path) -> None:
        """Use a directory, which is made when something is saved."""
        self.root = root

    def save(self, name: str, content: bytes) -> None:
        """Keep a content under a name."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def load(self, name: str) -> bytes:
        """Return a content; raise FileNotFoundError where there is none."""
        return (self.root / name).read_bytes()


class S3Storage:
    """A bucket, made at the start where it is missing; a start without the object store fails."""

    def __init__(self, bucket: str, client: Any) -> None:
        """Use a bucket by a boto3 client."""
        self.bucket = bucket
        self.client = client
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code == "404":
                client.create_bucket(Bucket=bucket)
            elif code != "403":
                raise

    def save(self, name: str, content: bytes) -> None:
        """Keep a content under a name."""
        self.client.put_object(Bucket=self.bucket, Key=name, Body=content)

    def load(self, name: str) -> bytes:
        """Return a content; raise FileNotFoundError where there is none."""
        try:
            content: bytes = self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchKey":
                raise FileNotFoundError(name) from error
            raise
        return content


def make_storage() -> Storage:
    """Return the storage that the settings name."""
    if SETTINGS.STORAGE_TYPE == "s3":
        client = boto3.client(
            "s3",
            aws_access_key_id=SETTINGS.S3_ACCESS_KEY or None,
            aws_secret_access_key=SETTINGS.S3_SECRET_KEY or None,
            endpoint_url=SETTINGS.S3_ENDPOINT or None,
            region_name=SETTINGS.S3_REGION or None,
            config=Config(s3={"addressing_style": SETTINGS.S3_ADDRESS_STYLE}),
        )
        return S3Storage(SETTINGS.S3_BUCKET_NAME, client)
    if SETTINGS.STORAGE_TYPE == "opendal" and SETTINGS.OPENDAL_SCHEME == "fs":
        return DirectoryStorage(ROOT / SETTINGS.OPENDAL_FS_ROOT)
    if SETTINGS.STORAGE_TYPE == "local":
        return DirectoryStorage(ROOT / SETTINGS.STORAGE_LOCAL_PATH)
    raise NotImplementedError(f"the stand-in stores in s3 or a directory, not STORAGE_TYPE={SETTINGS.STORAGE_TYPE}")
