"""A server on this machine that sends a file well or badly, and remembers what it did."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several chunks
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves CONTENT; knows Range or not; may break off; remembers what was asked and sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.knows_range = True
        self.breaks_after: int | None = None
        self.status = 200
        self.content = CONTENT
        self.asked: list[str | None] = []
        self.sent = 0
        self.url = f"http://127.0.0.1:{self.server_port}/weights.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        start, status = 0, server.status
        if wanted and server.knows_range and status == 200:
            start, status = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]), 206
            if start >= len(server.content):
                start, status = len(server.content), 416
        body = server.content[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            total = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        body = body[: server.breaks_after]
        server.sent += len(body)  # before the client has it all and looks
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
