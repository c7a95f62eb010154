"""A store on object storage, against moto's S3 server on loopback: the same guarantees and the same bytes as on disk."""

import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from featurestore import copies, rangefile
from featurestore import extract as extract_module
from featurestore.claims import Claims
from featurestore.copies import local_file
from featurestore.errors import DamageError, DataError, StoreError
from featurestore.extract import extract_features
from featurestore.featureset import create_feature_set, list_feature_sets, open_feature_set
from featurestore.fsio import read_parquet, remove, scan_parquet, touch, write_atomic, write_new, write_parquet
from featurestore.items import list_items
from featurestore.reader import open_features
from featurestore.remote import ObjectPath, object_path
from featurestore.store import open_store

from .pictures import add_pictures, add_reports, write_pictures
from .sets import add_images, fill, image_layout, text_layout, tokens_of, write_all


class Server:
    """moto behind a door that counts requests and can break off answers."""

    def __init__(self):
        self.requests: list[tuple[str, str]] = []
        self.break_off = lambda method, path: False
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ, start):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if self.break_off(method, path):
            list(self._app(environ, lambda *_: None))  # it is done, and nobody hears of it
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self._app(environ, start)

    def fetched(self, ending: str) -> list[str]:
        return [path for method, path in self.requests if method == "GET" and path.endswith(ending)]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def one_server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(one_server, tmp_path, monkeypatch):
    """The server; the environment leads to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_server.url)
    monkeypatch.setenv("RADFS_CACHE", str(tmp_path / "cache"))
    one_server.break_off = lambda method, path: False
    one_server.requests.clear()
    return one_server


@pytest.fixture
def bucket(server):
    """The address of an empty bucket."""
    name = f"lab-{uuid.uuid4().hex[:8]}"
    urlopen(Request(f"{server.url}/{name}", method="PUT")).close()
    return f"s3://{name}"


@pytest.fixture
def remote(bucket):
    return open_store(f"{bucket}/stores/one", create=True)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(extract_module, "shard_rows_for", lambda **_: 8)


def objects_below(path: ObjectPath) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*")}


def test_x(server, remote, tmp_path, small_shards):
    from collections import Counter
    items = add_pictures(remote, write_pictures(tmp_path / "in", 21))
    extract_features(remote, "tiny", batch_size=4, items=items[:8])
    def show(what):
        import re
        print(what, len(server.requests), f"{time.time()-t0:.2f} s")
        for (m, p), n in sorted(Counter((m, re.sub(r"[0-9a-f]{12}", "X", p.split("one/")[-1])) for m, p in server.requests).items()): print("   ", n, m, p)
        server.requests.clear()
    server.requests.clear(); t0=time.time()
    report = extract_features(remote, "tiny", batch_size=4)
    show("extract 2 shards")
    t0=time.time()
    report = extract_features(remote, "tiny", batch_size=4)
    show("nothing")
    t0=time.time()
    f = open_features(remote, report.feature_set)
    show("open")
    f.image_tokens(items)
    show("read")
