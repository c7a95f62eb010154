"""Fixtures of tests on object storage: moto's S3 server, a bucket, a store in it."""

import os
import uuid
from datetime import timedelta

import pytest

from featurestore import copies
from featurestore import remote as remote_module
from featurestore.remote import object_path
from featurestore.store import open_store


@pytest.fixture(scope="session")
def one_server():
    pytest.importorskip("obstore", reason="radfs[s3] is not installed")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    from .s3 import Server

    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(one_server, tmp_path, monkeypatch):
    """The server; the environment leads to it, and to an empty cache."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_server.url)
    monkeypatch.setenv("RADFS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "_opened", set())
    one_server.forget()
    return one_server


@pytest.fixture
def bucket(server):
    """The address of an empty bucket."""
    name = f"lab-{uuid.uuid4().hex[:8]}"
    server.make_bucket(name)
    return f"s3://{name}"


@pytest.fixture
def folder(bucket):
    return object_path(f"{bucket}/folder")


@pytest.fixture
def remote(bucket):
    """An empty store."""
    return open_store(f"{bucket}/stores/one", create=True)


@pytest.fixture
def impatient(monkeypatch):
    """Two tries, not nine."""
    monkeypatch.setattr(remote_module, "_RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=5)})
    remote_module._connect.cache_clear()
    yield
    remote_module._connect.cache_clear()
