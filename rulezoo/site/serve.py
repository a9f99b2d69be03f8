"""The site at an address of this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rulezoo.errors import UserError

HOST = "127.0.0.1"  #: this machine only: results may not be public yet


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the standard library
        pass

    def list_directory(self, path: object) -> None:
        self.send_error(404, "No listing")


def serve(folder: Path, port: int, started: Callable[[str], object]) -> None:
    """Serve a folder until Ctrl-C.

    Args:
        folder: of the site.
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


def server_of(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder that listens, and is not served yet."""
    return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder)))
