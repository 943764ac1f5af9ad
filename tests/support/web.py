# SPDX-License-Identifier: Apache-2.0
"""A web server on the loopback interface that can die in the middle of a file."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Iterator


class Server(ThreadingHTTPServer):
    """Serves a directory; of files with ``cut`` in their path it sends the first half only."""

    daemon_threads = True
    cut = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(SimpleHTTPRequestHandler):
    server: Server

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        content = source.read()
        if self.server.cut and self.server.cut in self.path:
            outputfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            outputfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@contextmanager
def serve(directory: Path) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), partial(_Handler, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
