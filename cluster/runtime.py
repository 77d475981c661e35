"""Ray itself: an embedded one on a laptop, or the cluster we were sent to; and what its nodes have."""

import contextlib
import logging
import os
import socket
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
import ray._private.state
import ray._private.worker
import yaml

from wm.errors import UserError

log = logging.getLogger(__name__)

ROLE = "wm.io/role"  # node types of ray_cluster.yaml carry it: rollout, train
SOCKET_PATH = 107  # the most that a unix socket's path may have
SESSION_PATH = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
# On a head that `ray up` has started: the cluster's file, as Ray's autoscaler reads it.
PLAN = "~/ray_bootstrap_config.yaml"
_joined = False  # a cluster that is not our own


@dataclass(frozen=True)
class NodeType:
    """Machines that the autoscaler starts when they are asked for."""

    role: str
    cpus: int
    gpus: int
    most: int


@dataclass(frozen=True)
class Node:
    id: str
    cpus: int
    gpus: int
    role: str
    draining: bool


def connect(address: str = "", num_cpus: int = 0, object_store_mb: int = 512) -> None:
    """Join the cluster at `address`, or that of RAY_ADDRESS (set inside a submitted job), else start our own.

    A cluster that merely runs on this machine is not taken: it may be somebody else's.
    """
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS", "") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # a token is no cause for alarm
    _quiet()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": object_store_mb * 2**20}
        options |= {"num_cpus": num_cpus or None, "_temp_dir": _short_temp_dir()}
    else:
        _look(address)
    global _joined
    _joined = address != "local"
    try:
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises Exception itself where its start takes too long
        if address == "local" and "timed out" in str(error):
            raise UserError(
                f"Ray did not start in time ({_first_line(error)}): give the same command again when this machine is"
                " less busy, or with --local, which does without Ray"
            ) from error
        if address == "local" or not isinstance(error, ConnectionError | RuntimeError | ValueError):
            raise
        raise UserError(f"can't join the Ray cluster at {address} ({_first_line(error)}): {CURE}") from error


CURE = (
    "give the head's host:port (6379 by default) as --address or RAY_ADDRESS, with RAY_AUTH_MODE and the "
    "token that its nodes have; or unset RAY_ADDRESS to work on this machine alone"
)


def disconnect() -> None:
    """Leave the cluster; stop it if it is our own."""
    ray.shutdown()


def nodes() -> list[Node]:
    """The nodes that are alive now. Costs about 2 ms and a little more for each node."""
    draining = _draining()
    return [
        Node(
            id=node["NodeID"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            role=node.get("Labels", {}).get(ROLE, ""),
            draining=node["NodeID"] in draining,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def rollout_nodes(alive: list[Node]) -> list[Node]:
    """Where rollouts go: to the nodes labelled so, if any are; else anywhere with a CPU. Not to one that leaves."""
    stay = [node for node in alive if not node.draining]
    return [node for node in stay if node.role == "rollout"] or [node for node in stay if node.cpus]


def planned() -> list[NodeType]:
    """What this cluster may grow by: nothing unless we are on its head, where its jobs run, and it scales itself."""
    return _types(PLAN) if _joined else []


@cache
def _types(path: str) -> list[NodeType]:
    try:
        said = yaml.safe_load(Path(path).expanduser().read_text())
        return [
            NodeType(
                role=kind.get("labels", {}).get(ROLE, ""),
                cpus=int(kind["resources"].get("CPU", 0)),
                gpus=int(kind["resources"].get("GPU", 0)),
                most=int(kind.get("max_workers", said.get("max_workers", 0))),
            )
            for name, kind in said["available_node_types"].items()
            if name != said["head_node_type"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        log.warning("%s can't be read (%s): only nodes that are there already are used", path, error)
        return []


def planned_cpus() -> int:
    """For rollouts."""
    return sum(kind.cpus * kind.most for kind in planned() if kind.role == "rollout")


def planned_gpus() -> int:
    return sum(kind.gpus * kind.most for kind in planned())


def _draining() -> set[str]:
    """Nodes that will be gone soon (a spot instance given notice). Ray has no public call for this."""
    with contextlib.suppress(AttributeError):
        return set(ray._private.state.state.get_draining_nodes())
    return set()


def _quiet() -> None:
    """Ray prints its nodes' complaints on our stdout, where only the job's summary belongs: log them instead."""

    def to_log(data: dict[str, Any], *_: Any, **__: Any) -> None:
        for line in data.get("lines", []):
            log.info("ray: %s", line.strip())

    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = to_log


def _short_temp_dir() -> str | None:
    """Ray puts its sockets under the temp dir: below a long TMPDIR their paths would be too long to open."""
    room = SOCKET_PATH - SESSION_PATH
    own = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return "/tmp/ray" if len(own) > room else None


def _look(address: str) -> None:
    """Ray takes up to a minute to find that nobody answers, and may end the process then: look first."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("http://").rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise UserError(f"{address} is not the address of a Ray cluster: {CURE}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at {address} ({error}): {CURE}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
