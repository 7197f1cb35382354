"""A server that speaks S3, from the package moto, in a process of its own; it checks keys."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from processes import free_port, wait_for

BUCKET = "results"
_IAM_CALLS = 3
"""Calls that the server answers without keys: those that make them."""


@dataclass
class S3:
    """A running server with one bucket, and keys that may use it.

    Parameters
    ----------
    url
        Its address.
    process
        Its process.
    key, secret
        The keys.
    """

    url: str
    process: subprocess.Popen[bytes]
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def client(self, kind: str = "s3"):
        return _client(kind, self.url, self.key, self.secret)

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        names = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {name: client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[S3]:
    """The server, until the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(_IAM_CALLS)}
    with log.open("wb") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for("the server", lambda: _answers(url, process), 60)
        iam = _client("iam", url, "none", "none")
        allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.create_user(UserName="clones")
        iam.put_user_policy(UserName="clones", PolicyName="results", PolicyDocument=json.dumps(allowed))
        keys = iam.create_access_key(UserName="clones")["AccessKey"]
        server = S3(url, process, keys["AccessKeyId"], keys["SecretAccessKey"])
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        process.kill()
        process.wait()


def _client(kind: str, url: str, key: str, secret: str):
    import boto3

    return boto3.client(kind, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret)


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server ended"
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5):
        return True
    return False
