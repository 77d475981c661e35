"""The watcher on each worker: EC2 gives two minutes' notice before it takes a spot instance; Ray does not listen.

    python -m cluster.spot --address HEAD:6379

A node with notice is drained: it gets no new work, and what it has is done elsewhere. A mere recommendation to
rebalance is logged and no more: most instances that get one stay for hours.
"""

import argparse
import datetime
import fcntl
import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

log = logging.getLogger(__name__)

ENDPOINT = "http://169.254.169.254"  # where every instance finds its metadata
TOKEN_SECONDS = 21600  # the longest that a token lives
POLL_SECONDS = 5.0  # as often as EC2 itself advises
NOTICE_SECONDS = 110  # of the two minutes, what is left for sure
LOCK = "/tmp/wm-spot.lock"  # one watcher a node, however often Ray is started on it


class Metadata:
    """Instance metadata, version 2: nothing without a token."""

    def __init__(self, endpoint: str = ENDPOINT):
        self.endpoint, self.token = endpoint.rstrip("/"), ""

    def get(self, path: str) -> str | None:
        """What stands there, or None where there is nothing (yet)."""
        try:
            return self._get(path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code != 401:
                raise
        self.token = ""  # it has expired
        return self._get(path)

    def _get(self, path: str) -> str:
        if not self.token:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            self.token = self._ask("PUT", "/latest/api/token", lifetime)
        return self._ask("GET", f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self.token})

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self.endpoint + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=2) as answer:
            return answer.read().decode()


def watch(metadata: Metadata, address: str, node: str = "", poll_seconds: float = POLL_SECONDS) -> None:
    """Until this instance is taken back; at once where it can't be, since it is no spot instance."""
    said, trouble, life = False, False, None
    while True:
        try:
            life = life or metadata.get("instance-life-cycle")
            if life and life != "spot":
                log.info("this instance is %s: nothing to watch for", life)
                return
            notice = metadata.get("spot/instance-action")
            if notice and drain(address, node, seconds_left(notice)):
                return
            advice = metadata.get("events/recommendations/rebalance")
            if advice and not said:
                said = True
                log.warning("EC2 recommends to leave (%s): not urgent, so the node stays", advice)
            trouble = False
        except OSError as error:
            if not trouble:
                trouble = True
                log.warning("no metadata (%s): trying again", error)
        time.sleep(poll_seconds)


def seconds_left(notice: str) -> int:
    """Until the instance goes, as far as the notice says when."""
    try:
        when = datetime.datetime.fromisoformat(json.loads(notice)["time"])
        left = (when - datetime.datetime.now(datetime.UTC)).total_seconds() - 5
    except (ValueError, KeyError, TypeError):
        return NOTICE_SECONDS
    return int(min(NOTICE_SECONDS, max(0.0, left)))


def drain(address: str, node: str, seconds: int) -> bool:
    """Tell Ray. Whether it has agreed."""
    node = node or own_node()
    log.warning("EC2 takes this instance back: node %s is drained, %d s are left", node, seconds)
    words = ["drain-node", "--address", address, "--node-id", node]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    words += ["--deadline-remaining-seconds", str(seconds)]
    ray = Path(sys.executable).with_name("ray")
    try:
        done = subprocess.run([str(ray), *words], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        log.warning("Ray does not answer: trying again")
        return False
    if done.returncode:
        log.warning("not drained, trying again: %s", (done.stderr or done.stdout).strip()[-500:])
    return done.returncode == 0


def own_node() -> str:
    """Ray's name for the node that this process is on."""
    from ray._private.services import find_node_ids

    nodes = find_node_ids()
    if len(nodes) != 1:
        raise OSError(f"{len(nodes)} Ray nodes run here instead of one")
    return nodes.pop()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.spot", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--address", required=True, help="the head's host:port")
    parser.add_argument("--node-id", default="", help="the node to drain, where several run on one machine")
    parser.add_argument("--endpoint", default=ENDPOINT, help="where the metadata is")
    parser.add_argument("--poll-seconds", type=float, default=POLL_SECONDS)
    parser.add_argument("--lock", default=LOCK, help="a file that only one watcher can hold")
    said = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with open(said.lock, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another watcher is at work here")
            return
        watch(Metadata(said.endpoint), said.address, said.node_id, said.poll_seconds)


if __name__ == "__main__":
    main()
