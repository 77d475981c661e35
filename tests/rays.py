"""A Ray cluster of several nodes with a job server, in a separate process that can be killed like a machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 120


class Rays:
    """A head node without CPUs, as in ray_cluster.yaml, and rollout nodes."""

    def __init__(self, nodes: int = 2, cpus: int = 1, **environment: str):
        self.folder = Path(tempfile.mkdtemp(prefix="wm-", dir="/tmp"))  # short, since paths of sockets are limited
        programs = str(Path(sys.executable).parent)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        # PYTHONPATH stands for code that is part of the image.
        usual = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        self.log = (self.folder / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder), str(nodes), str(cpus)],
            env=clean | usual | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout is not None
        line = ""
        while not line.startswith("{"):  # Ray may print messages first
            line = self.process.stdout.readline()
            assert line, (self.folder / "log").read_text()
        addresses = json.loads(line)
        self.address, self.jobs = addresses["address"], addresses["jobs"]

    def end(self, word: str = "end") -> None:
        """Shut the cluster down, or with "lose" kill all processes of its nodes."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.write(word + "\n")
            self.process.stdin.close()
            self.process.wait(SECONDS)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, path: str, token: str = "") -> int:
        """The HTTP status of a request to the job server."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.jobs + path, headers=headers), timeout=20
            ) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


def at(number: int) -> dict[str, Any]:
    """A separate loopback address for a node. Ray replaces 127.0.0.1 with the address of the network interface."""
    return {"node_ip_address": f"127.0.0.{number}"} if sys.platform == "linux" else {}


def main(folder: str, nodes: int, cpus: int) -> None:
    from ray._private.utils import write_ray_address
    from ray.cluster_utils import Cluster

    head: dict[str, Any] = {**at(2), "num_cpus": 0, "temp_dir": folder, "object_store_memory": 100 * 2**20}
    head |= {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"labels": {"wm.io/role": "head"}})
    # As in `ray start`. Without it, jobs would connect to any Ray that runs on this machine.
    write_ray_address(cluster.address, folder)
    for number in range(nodes):
        memory, labels = 80 * 2**20, {"wm.io/role": "rollout"}
        cluster.add_node(**at(3 + number), num_cpus=cpus, object_store_memory=memory, labels=labels)
    print(json.dumps({"address": cluster.address, "jobs": f"http://{cluster.head_node.webui_url}"}), flush=True)
    word = sys.stdin.readline().strip()
    if word == "lose":
        for node in cluster.list_all_nodes():
            node.kill_all_processes(check_alive=False, allow_graceful=False)
    else:
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
