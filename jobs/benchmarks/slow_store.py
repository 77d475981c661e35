"""A read-only S3 server on loopback whose answers are late, like those of a bucket. It has a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote, urlsplit


@contextmanager
def slow_store(folder: str, delay: float) -> Iterator[str]:
    """The URI of a bucket with the files of this folder; each request takes `delay` seconds more."""
    command = (sys.executable, "-m", "jobs.benchmarks.slow_store", folder, str(delay))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
        try:
            with patch.dict(os.environ, {"AWS_ENDPOINT_URL": endpoint, **keys}):
                for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
                    os.environ.pop(name, None)
                yield "s3://bench"
        finally:
            server.kill()


def serve(folder: str, delay: float) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            time.sleep(delay)
            path = Path(folder, unquote(urlsplit(self.path).path).removeprefix("/bench/"))
            size = path.stat().st_size
            first, last = 0, size - 1
            if asked := self.headers.get("Range"):
                first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
                last = min(last, size - 1)
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.send_header("ETag", '"bench"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                with path.open("rb") as file:
                    file.seek(first)
                    self.wfile.write(file.read(last + 1 - first))

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))
