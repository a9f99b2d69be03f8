"""The report at an address of this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rulezoo.errors import UserError

HOST = "127.0.0.1"  #: this machine only: results may not be public yet


NAMES = ("127.0.0.1", "localhost", "[::1]")  # a page elsewhere may have a name of its own that leads here
MOST = 32  # connections at once; a browser opens six
PATIENCE = 30.0  # seconds without a word after which a connection is closed


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, for requests to this machine by its own names, without a line for each request."""

    timeout = PATIENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the standard library
        pass

    def send_head(self) -> Any:  # noqa: ANN401  as the standard library has it
        """Answer with the file, or with the reason why not."""
        if (
            self.headers.get("Host", "").rpartition(":")[0] not in NAMES
            and self.headers.get("Host") not in NAMES
        ):
            self.send_error(421, "Not a name of this machine")
            return None
        try:
            return super().send_head()
        except ValueError:  # a path that no file can have, as one with a zero byte
            self.send_error(404, "File not found")
            return None

    def list_directory(self, path: object) -> None:
        self.send_error(404, "No listing")


class Server(ThreadingHTTPServer):
    """At most `MOST` connections at once: further ones are closed."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401  handed on as they are
        self._free = threading.Semaphore(MOST)
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve a connection in a thread, if one is free."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Say nothing of a connection that broke off."""


def serve(folder: Path, port: int, started: Callable[[str], object]) -> None:
    """Serve a folder until Ctrl-C.

    Args:
        folder: of the report.
        port: to listen on; 0 = any that is free.
        started: called with the address once it can be opened.

    Raises:
        UserError: if the port is taken.
    """
    try:
        server = server_of(folder, port)
    except OSError as error:
        raise UserError(
            f"port {port} cannot be used ({error.strerror}): choose another with --port"
        ) from error
    with server:
        started(f"http://{HOST}:{server.server_address[1]}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def server_of(folder: Path, port: int) -> Server:
    """A server of a folder that listens, and is not served yet."""
    return Server((HOST, port), partial(_Handler, directory=str(folder)))
