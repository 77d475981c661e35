"""The spot watcher against a fake EC2 metadata service. Some tests drain a real Ray node."""

import datetime
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster import spot
from cluster.spot import Metadata, seconds_left, watch


class FakeMetadataServer:
    """A metadata service, version 2: rejects requests without a token."""

    def __init__(self) -> None:
        self.values = {"instance-life-cycle": "spot"}
        self.tokens: set[str] = set()
        self.asked: list[str] = []
        self.broken = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                assert 0 < int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600
                token = f"token-{len(server.asked)}"
                server.tokens.add(token)
                self.answer(500 if server.broken else 200, token)

            def do_GET(self) -> None:
                key = self.path.removeprefix("/latest/meta-data/")
                server.asked.append(key)
                if server.broken:
                    self.answer(500, "")
                elif self.headers.get("X-aws-ec2-metadata-token") not in server.tokens:
                    self.answer(401, "")
                else:
                    self.answer(200 if key in server.values else 404, server.values.get(key, ""))

            def answer(self, code: int, text: str) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def interrupt(self, seconds: float = 120) -> None:
        when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        notice = {"action": "terminate", "time": when.strftime("%Y-%m-%dT%H:%M:%SZ")}
        self.values["spot/instance-action"] = json.dumps(notice)


@pytest.fixture
def instance() -> Iterator[FakeMetadataServer]:
    one = FakeMetadataServer()
    yield one
    one.server.shutdown()


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Records calls of `drain` instead of draining."""
    calls: list[tuple[str, str, int]] = []
    monkeypatch.setattr(spot, "drain", lambda *words: calls.append(words) is None)
    return calls


def run(instance: FakeMetadataServer) -> threading.Thread:
    watcher = threading.Thread(target=watch, args=(Metadata(instance.endpoint), "head:6379", "node", 0.01), daemon=True)
    watcher.start()
    return watcher


def test_a_notice_drains_the_node_within_two_minutes(
    instance: FakeMetadataServer, drained: list[tuple[str, str, int]]
) -> None:
    watcher = run(instance)
    until(lambda: instance.asked.count("spot/instance-action") > 3)
    assert not drained
    instance.interrupt()
    watcher.join(10)
    [(address, node, seconds)] = drained
    assert (address, node) == ("head:6379", "node")
    assert 100 <= seconds <= 110


def test_an_on_demand_instance_is_not_watched(
    instance: FakeMetadataServer, drained: list[tuple[str, str, int]]
) -> None:
    instance.values["instance-life-cycle"] = "on-demand"
    watch(Metadata(instance.endpoint), "head:6379", "node", 0.01)
    assert not drained


def test_a_rebalance_recommendation_is_logged_once_and_drains_nothing(
    instance: FakeMetadataServer, drained: list[tuple[str, str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    instance.values["events/recommendations/rebalance"] = '{"noticeTime": "2026-01-01T00:00:00Z"}'
    watcher = run(instance)
    until(lambda: instance.asked.count("events/recommendations/rebalance") > 3)
    assert [record.message for record in caplog.records if "recommendation" in record.message] != []
    assert len([record for record in caplog.records if "recommendation" in record.message]) == 1
    assert not drained
    instance.interrupt()
    watcher.join(10)


def test_the_watcher_survives_expired_tokens_and_metadata_errors(
    instance: FakeMetadataServer, drained: list[tuple[str, str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    watcher = run(instance)
    until(lambda: len(instance.asked) > 3)
    instance.tokens.clear()
    instance.broken = True
    until(lambda: [record for record in caplog.records if "can't read instance metadata" in record.message])
    instance.broken = False
    instance.interrupt()
    watcher.join(10)
    assert len(drained) == 1


def test_a_failed_drain_is_retried(instance: FakeMetadataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([False, False, True])
    monkeypatch.setattr(spot, "drain", lambda *words: next(answers))
    instance.interrupt()
    run(instance).join(10)
    assert next(answers, None) is None


@pytest.mark.parametrize(
    ("notice", "least", "most"),
    [("{}", 110, 110), ("soon", 110, 110), ('{"time": "2020-01-01T00:00:00Z"}', 0, 0), ('{"time": null}', 110, 110)],
)
def test_a_notice_without_a_valid_time_still_drains(notice: str, least: int, most: int) -> None:
    assert least <= seconds_left(notice) <= most


def test_the_watcher_drains_a_real_node(instance: FakeMetadataServer, cluster: Any, node: Any, tmp_path: Path) -> None:
    """Run as in ray_cluster.yaml. A busy node stays until its deadline but gets no new work."""
    import ray

    from cluster import runtime

    logging.getLogger("cluster.spot").setLevel(logging.INFO)
    draining = node(num_cpus=1, labels={"wm.io/role": "rollout"})
    until(lambda: draining.node_id in {one.id for one in runtime.nodes()})

    def start(log: Path) -> subprocess.Popen[bytes]:
        words = ["--address", cluster.address, "--node-id", draining.node_id, "--endpoint", instance.endpoint]
        words += ["--poll-seconds", "0.2", "--lock", str(tmp_path / "lock")]
        with log.open("wb") as file:
            return subprocess.Popen([sys.executable, "-m", "cluster.spot", *words], stdout=file, stderr=file)

    @ray.remote(num_cpus=1, label_selector={"wm.io/role": "rollout"})
    class Worker:
        def ready(self) -> str:
            return ray.get_runtime_context().get_node_id()

    worker = Worker.remote()
    assert ray.get(worker.ready.remote(), timeout=60) == draining.node_id  # a busy node stays for a while
    watcher = start(tmp_path / "watcher")
    until(lambda: instance.asked.count("spot/instance-action") > 1)
    second = start(tmp_path / "second")
    assert second.wait(30) == 0  # one watcher per node
    assert b"another watcher" in (tmp_path / "second").read_bytes()

    instance.interrupt()
    assert watcher.wait(60) == 0, (tmp_path / "watcher").read_text()
    until(lambda: draining.node_id in {one.id for one in runtime.nodes() if one.draining})
    assert draining.node_id not in {one.id for one in runtime.rollout_nodes(runtime.nodes())}
    ray.kill(worker)


def test_units_of_a_draining_node_run_elsewhere_and_are_returned_once(
    instance: FakeMetadataServer, cluster: Any, node: Any, as_work: Any
) -> None:
    from cluster import runtime
    from cluster.pool import RayPool

    def play(unit: int) -> str:
        import ray

        time.sleep(0.3)
        return ray.get_runtime_context().get_node_id()

    draining, staying = (node(num_cpus=1, labels={"wm.io/role": "rollout"}) for _ in range(2))
    words = (Metadata(instance.endpoint), cluster.address, draining.node_id, 0.2)
    watcher = threading.Thread(target=watch, args=words, daemon=True)
    drained_at: list[int] = []

    def units() -> Iterator[int]:
        """Units until some time after the node was drained."""
        for unit in range(2000):
            if not drained_at and draining.node_id in runtime._draining():
                drained_at.append(unit)
            if drained_at and unit >= drained_at[0] + 24:
                return
            yield unit

    pool, answers = RayPool(workers=2), []
    with pool.crew(as_work(play)) as crew:
        for answer in crew.map(units()):
            answers.append(answer)
            if not watcher.ident and {where for _, where in answers} == {draining.node_id, staying.node_id}:
                instance.interrupt()  # while both nodes are busy
                watcher.start()
    assert drained_at
    assert sorted(unit for unit, _ in answers) == list(range(len(answers)))  # none lost, none returned twice
    late = [where for unit, where in answers if unit >= drained_at[0] + 16]  # the pool polls the nodes once per second
    assert set(late) == {staying.node_id}
    assert pool.stats.units == len(answers)


def until(ready: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)
