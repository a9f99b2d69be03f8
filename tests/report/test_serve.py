"""The report at an address of this machine: for this machine only, whatever is asked of it."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from rulezoo.report import serve
from rulezoo.report.serve import HOST, server_of
from rulezoo.results.store import Store


@contextmanager
def served(folder):
    with server_of(folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@pytest.fixture
def port(tmp_path):
    (tmp_path / "index.html").write_text("hello")
    with served(tmp_path) as port:
        yield port


def status(port, path="/index.html", **headers):
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    found = connection.getresponse().status
    connection.close()
    return found


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_names_of_this_machine_are_answered(port, name):
    assert status(port, Host=f"{name}:{port}") == 200
    assert status(port, Host=name) == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.1.nip.io"]
)
def test_a_name_that_only_leads_here_is_refused(port, name):
    assert status(port, Host=name) == 421


def test_a_request_without_a_name_is_refused(port):
    assert status(port) == 421


def test_a_path_that_no_file_has_is_not_found(port, capfd):
    assert status(port, "/%00", Host="localhost") == 404
    assert "Traceback" not in capfd.readouterr().err


def test_connections_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "MOST", 2)
    (tmp_path / "index.html").write_text("hello")
    with served(tmp_path) as port:
        idle = [socket.create_connection((HOST, port), timeout=10) for _ in range(2)]
        for one in idle:  # answered, and kept waiting for more
            one.sendall(b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n")
        third = socket.create_connection((HOST, port), timeout=10)
        assert third.recv(1) == b""  # closed at once
        for one in (*idle, third):
            one.close()


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM is that of POSIX")
def test_sigterm_leaves_no_folder(run, tmp_path):
    store = Store(tmp_path / "results")
    store.put(run("backprop"))
    (temporary := tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "rulezoo", "leaderboard", "--out", store.root, "--serve", "--port", "0"]
    environment = os.environ | {
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
        "MPLCONFIGDIR": str(tmp_path),
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline()
        assert re.match(r"http://127\.0\.0\.1:\d+/ ", line), process.stderr.read()
        assert any((folder / "index.html").exists() for folder in temporary.iterdir())
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert not [folder for folder in temporary.iterdir() if (folder / "index.html").exists()]
    assert "Traceback" not in said
    assert process.returncode == 128 + signal.SIGTERM
