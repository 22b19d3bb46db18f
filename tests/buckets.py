"""A real S3 server: SeaweedFS, on loopback, with one user."""

import json
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

from minio import Minio
from minio.commonconfig import Tags
from urllib3 import PoolManager, Retry

ACCESS_KEY = "the-access-key"
SECRET_KEY = "the-secret-key"
REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and a client that may do everything."""

    address: str
    client: Minio

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def settings(self, *buckets: str, **options: Any) -> dict[str, Any]:
        """Return what `RAGCORE_BUCKETS__SERVERS__NAME` would hold."""
        return {
            "url": self.url,
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "region": REGION,
            "buckets": buckets,
            **options,
        }

    def make_bucket(self) -> "Bucket":
        """Make an empty bucket with a name of its own."""
        name = f"test-{uuid4().hex[:12]}"
        self.client.make_bucket(name)
        return Bucket(self.client, name)


@dataclass(frozen=True)
class Bucket:
    """A bucket that a test owns."""

    client: Minio
    name: str

    def put(
        self,
        key: str,
        content: str | bytes,
        *,
        metadata: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        data = content.encode() if isinstance(content, str) else content
        given = None
        if tags is not None:
            given = Tags.new_object_tags()
            given.update(tags)
        self.client.put_object(
            self.name, key, BytesIO(data), len(data), metadata=metadata, tags=given
        )

    def remove(self, *keys: str) -> None:
        for key in keys:
            self.client.remove_object(self.name, key)

    def uri(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}"


@contextmanager
def running_s3_server(directory: Path) -> Iterator[S3Server]:
    """Start the server in a directory and stop it at the end."""
    users = directory / "users.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [{"name": "tester", "credentials": credentials, "actions": actions}]
    users.write_text(json.dumps({"identities": identities}))
    (directory / "data").mkdir()
    # Each bucket has files of its own: one of them, not seven.
    (directory / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    ports = _free_ports(8)
    program = Path(sysconfig.get_path("scripts")) / "weed"
    command = [
        str(program), "-logtostderr", "server", f"-dir={directory / 'data'}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64", "-volume.max=1000", "-volume.preStopSeconds=0",
        f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}",
        f"-volume.port={ports[2]}", f"-volume.port.grpc={ports[3]}",
        "-filer", f"-filer.port={ports[4]}", f"-filer.port.grpc={ports[5]}",
        "-s3", f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}", f"-s3.config={users}",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    with (directory / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        try:
            address = f"127.0.0.1:{ports[6]}"
            client = Minio(
                address, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, secure=False
            )
            _wait_until_it_stores(client, address, process, directory / "weed.log")
            yield S3Server(address, client)
        finally:
            process.kill()
            process.wait()


def _wait_until_it_stores(
    client: Minio, address: str, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    """Wait for the first object to be stored: the port is open some seconds before that."""
    quick = Minio(
        address,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        region=REGION,
        secure=False,
        http_client=PoolManager(retries=Retry(0), timeout=10),
    )
    last: Exception | None = None
    for _ in range(300):
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            if not quick.bucket_exists("first"):
                quick.make_bucket("first")
            quick.put_object("first", "object", BytesIO(b"x"), 1)
            return
        except Exception as error:  # noqa: BLE001 - whatever it says before it is ready
            last = error
        time.sleep(0.2)
    raise AssertionError(f"the S3 server did not start: {last!r}; {log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
