"""Drains a node when EC2 sends the two-minute interruption notice for its spot instance, which Ray does not handle.

    python -m cluster.spot --address HEAD:6379

Runs on each worker node. A drained node gets no new work, and its units are sent to other nodes. Rebalance
recommendations are only logged, since most instances that get one keep running for hours.
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

ENDPOINT = "http://169.254.169.254"  # EC2 instance metadata service
TOKEN_SECONDS = 21600  # maximum lifetime of a metadata token
POLL_SECONDS = 5.0  # interval recommended by EC2
NOTICE_SECONDS = 110  # two minutes minus a safety margin
LOCK = "/tmp/wm-spot.lock"  # one watcher per machine, even if Ray is restarted on it


class Metadata:
    """Client for the instance metadata service, version 2 (with session tokens)."""

    def __init__(self, endpoint: str = ENDPOINT):
        self.endpoint, self.token = endpoint.rstrip("/"), ""

    def get(self, path: str) -> str | None:
        """The value at `path`, or None if there is none."""
        try:
            return self._get(path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code != 401:
                raise
        self.token = ""  # expired
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
    """Poll for an interruption notice and drain the node. Returns immediately if this is not a spot instance."""
    advised, failing, lifecycle = False, False, None
    while True:
        try:
            lifecycle = lifecycle or metadata.get("instance-life-cycle")
            if lifecycle and lifecycle != "spot":
                log.info("this instance is %s, not spot: nothing to watch", lifecycle)
                return
            notice = metadata.get("spot/instance-action")
            if notice and drain(address, node, seconds_left(notice)):
                return
            advice = metadata.get("events/recommendations/rebalance")
            if advice and not advised:
                advised = True
                log.warning("EC2 sent a rebalance recommendation (%s): not draining the node", advice)
            failing = False
        except OSError as error:
            if not failing:
                failing = True
                log.warning("can't read instance metadata (%s): retrying", error)
        time.sleep(poll_seconds)


def seconds_left(notice: str) -> int:
    """Seconds until the instance is terminated; NOTICE_SECONDS if the notice has no valid time."""
    try:
        when = datetime.datetime.fromisoformat(json.loads(notice)["time"])
        left = (when - datetime.datetime.now(datetime.UTC)).total_seconds() - 5
    except (ValueError, KeyError, TypeError):
        return NOTICE_SECONDS
    return int(min(NOTICE_SECONDS, max(0.0, left)))


def drain(address: str, node: str, seconds: int) -> bool:
    """Drain the node in Ray; False if Ray rejects it or does not answer."""
    node = node or local_node_id()
    log.warning("EC2 interruption notice: draining node %s, %d s left", node, seconds)
    command = ["drain-node", "--address", address, "--node-id", node]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    command += ["--deadline-remaining-seconds", str(seconds)]
    ray = Path(sys.executable).with_name("ray")
    try:
        done = subprocess.run([str(ray), *command], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        log.warning("`ray drain-node` timed out: retrying")
        return False
    if done.returncode:
        log.warning("`ray drain-node` failed, retrying: %s", (done.stderr or done.stdout).strip()[-500:])
    return done.returncode == 0


def local_node_id() -> str:
    """Ray's id for the node that this process runs on."""
    from ray._private.services import find_node_ids

    nodes = find_node_ids()
    if len(nodes) != 1:
        raise OSError(f"expected one Ray node on this machine, found {len(nodes)}: set --node-id")
    return nodes.pop()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.spot", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--address", required=True, help="host:port of the head")
    parser.add_argument("--node-id", default="", help="node to drain, if several run on this machine")
    parser.add_argument("--endpoint", default=ENDPOINT, help="URL of the instance metadata service")
    parser.add_argument("--poll-seconds", type=float, default=POLL_SECONDS)
    parser.add_argument("--lock", default=LOCK, help="lock file that ensures a single watcher")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with open(options.lock, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another watcher is already running on this machine")
            return
        watch(Metadata(options.endpoint), options.address, options.node_id, options.poll_seconds)


if __name__ == "__main__":
    main()
