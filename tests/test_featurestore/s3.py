"""moto's S3 server on loopback, behind a door that counts requests and can spoil answers."""

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple
from urllib.request import Request, urlopen

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class Asked(NamedTuple):
    """One request: its method, path, query, and the range of bytes that it asks for."""

    method: str
    path: str
    query: str
    range: str


class Server:
    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self.asked: list[Asked] = []
        self.loses_answer: Callable[[Asked], bool] = lambda _: False
        self.refuses: Callable[[Asked], bool] = lambda _: False
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_put = threading.Lock()  # moto looks for a name and then takes it; S3 does both at once
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ, start):
        asked = Asked(*(environ.get(k, "") for k in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_RANGE")))
        self.asked.append(asked)
        if self.refuses(asked):
            start("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        if self.loses_answer(asked):
            list(self._app(environ, lambda *_: None))  # it is done, and nobody hears of it
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if asked.method != "PUT":
            return self._app(environ, start)
        with self._one_put:
            return self._app(environ, start)

    def fetched(self, part: str) -> list[Asked]:
        """The requests for the bytes of objects with this in their names."""
        return [a for a in self.asked if a.method == "GET" and part in a.path]

    def forget(self) -> None:
        """Begin anew: nothing was asked, nothing is spoilt."""
        self.asked.clear()
        self.loses_answer = self.refuses = lambda _: False

    def make_bucket(self, name: str) -> None:
        urlopen(Request(f"{self.url}/{name}", method="PUT")).close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
