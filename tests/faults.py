"""A proxy in front of an S3 server that injects the faults of networks and overloaded services."""

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

DROPPED = {"connection", "transfer-encoding", "content-length", "keep-alive"}
FAULTS = ("busy", "lost answer", "cut", "silence", "half")


class Faults:
    """A share of the requests fails, each in one of five ways. While `away`, all connections are closed."""

    def __init__(self, behind: str, share: float = 0.0, seed: int = 1, silent_seconds: float = 0.8):
        self.share, self.luck, self.away = share, random.Random(seed), False
        self.timer = threading.Timer(1e6, self.come_back)
        self.timer.daemon = True
        self.done: Counter[str] = Counter()
        host = urlsplit(behind).netloc
        faults = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = faults.draw()
                faults.done[fault] += 1
                if fault == "away" or fault == "cut":
                    return self.hang_up()
                if fault == "busy":
                    return self.answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
                if fault == "silence":
                    time.sleep(silent_seconds)
                    return self.hang_up()
                server = http.client.HTTPConnection(host, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                server.request(self.command, self.path, body, headers)
                answer = server.getresponse()
                data = answer.read()
                server.close()
                if fault == "lost answer":  # the request succeeded
                    return self.answer(500, [], b"<Error><Code>InternalError</Code></Error>")
                kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in DROPPED]
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                if fault == "half":
                    self.answer(answer.status, kept, data, data[: len(data) // 2], length)
                    return self.hang_up()
                return self.answer(answer.status, kept, data, length=length)

            def answer(
                self, status: int, headers: list[Any], data: bytes, sent: bytes | None = None, length: Any = None
            ) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                self.wfile.write(data if sent is None else sent)

            def hang_up(self) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *_: Any) -> None:
                pass

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.lock = threading.Lock()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def draw(self) -> str:
        with self.lock:
            if self.away:
                if not self.timer.ident:
                    self.timer.start()  # from the first refused request
                return "away"
            return self.luck.choice(FAULTS) if self.luck.random() < self.share else "none"

    def stay_away(self, seconds: float) -> None:
        self.timer = threading.Timer(seconds, self.come_back)
        self.away = True

    def come_back(self) -> None:
        self.away = False

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
