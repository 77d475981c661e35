"""Connects to Ray, either an embedded instance or an existing cluster, and describes its nodes."""

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

ROLE = "wm.io/role"  # label of the node types in ray_cluster.yaml: head, rollout or train
MAX_SOCKET_PATH = 107  # maximum length of a Unix socket path
SESSION_PATH_LENGTH = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
# The cluster config that `ray up` puts on the head for the autoscaler.
BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"
_joined = False  # connected to an existing cluster


@dataclass(frozen=True)
class NodeType:
    """Nodes that the autoscaler can start on demand."""

    role: str
    cpus: int
    gpus: int
    max_nodes: int


@dataclass(frozen=True)
class Node:
    id: str
    cpus: int
    gpus: int
    role: str
    draining: bool


def why_workers_wait() -> str:
    """The likely cause if no worker is ready yet, and what to do."""
    if _joined:
        return "nodes may still be starting (`ray status` shows them)"
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load > 1.5 * cpus:
        return (
            f"this machine is busy (load {load:.1f} on {cpus} CPUs), so processes start slowly: wait, stop other"
            " programs, or use --local, which needs no workers"
        )
    return "they are starting; if this goes on, use --local, which needs no workers"


def connect(address: str = "", num_cpus: int = 0, object_store_mb: int = 512) -> None:
    """Join the cluster at `address` or RAY_ADDRESS (set inside a submitted job), else start an embedded Ray.

    Unlike `ray.init`, this never joins a cluster that happens to run on this machine: it may belong to another user.
    """
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS", "") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it warns whenever a token is in use
    _redirect_node_output()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": object_store_mb * 2**20}
        options |= {"num_cpus": num_cpus or None, "_temp_dir": _short_temp_dir()}
    else:
        _check_reachable(address)
    global _joined
    _joined = address != "local"
    try:
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises a plain Exception if its start times out
        if address == "local" and "timed out" in str(error):
            raise UserError(
                f"Ray did not start in time ({_first_line(error)}): retry when this machine is less busy,"
                " or use --local to run without Ray"
            ) from error
        if address == "local" or not isinstance(error, ConnectionError | RuntimeError | ValueError):
            raise
        raise UserError(f"can't connect to the Ray cluster at {address} ({_first_line(error)}): {FIX}") from error


FIX = (
    "set --address or RAY_ADDRESS to the head's host:port (default port 6379), and RAY_AUTH_MODE and the token as on"
    " its nodes; or unset RAY_ADDRESS to run on this machine only"
)


def disconnect() -> None:
    """Disconnect from the cluster, and stop it if it is embedded."""
    ray.shutdown()


def nodes() -> list[Node]:
    """The nodes that are alive. Takes about 2 ms, plus a little for each node."""
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
    """Nodes for rollouts: those labelled rollout if there are any, else all with CPUs. Excludes draining nodes."""
    stay = [node for node in alive if not node.draining]
    return [node for node in stay if node.role == "rollout"] or [node for node in stay if node.cpus]


def planned() -> list[NodeType]:
    """Node types that the autoscaler can start. Empty unless this runs on the head of an autoscaling cluster."""
    return _node_types(BOOTSTRAP_CONFIG) if _joined else []


@cache
def _node_types(path: str) -> list[NodeType]:
    try:
        config = yaml.safe_load(Path(path).expanduser().read_text())
        return [
            NodeType(
                role=kind.get("labels", {}).get(ROLE, ""),
                cpus=int(kind["resources"].get("CPU", 0)),
                gpus=int(kind["resources"].get("GPU", 0)),
                max_nodes=int(kind.get("max_workers", config.get("max_workers", 0))),
            )
            for name, kind in config["available_node_types"].items()
            if name != config["head_node_type"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        log.warning("can't read %s (%s): using only nodes that already run", path, error)
        return []


def planned_cpus() -> int:
    return sum(kind.cpus * kind.max_nodes for kind in planned() if kind.role == "rollout")


def planned_gpus() -> int:
    return sum(kind.gpus * kind.max_nodes for kind in planned())


def _draining() -> set[str]:
    """Ids of nodes that will terminate soon, e.g. spot instances with a notice. Ray has no public API for this."""
    with contextlib.suppress(AttributeError):
        return set(ray._private.state.state.get_draining_nodes())
    return set()


def _redirect_node_output() -> None:
    """Log the messages of Ray's nodes. Ray prints them on stdout, which is reserved for the job's summary."""

    def to_log(data: dict[str, Any], *_: Any, **__: Any) -> None:
        for line in data.get("lines", []):
            log.info("ray: %s", line.strip())

    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = to_log


def _short_temp_dir() -> str | None:
    """/tmp/ray if TMPDIR is too long: Ray puts Unix sockets there, whose paths are limited in length."""
    max_length = MAX_SOCKET_PATH - SESSION_PATH_LENGTH
    temp_dir = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return "/tmp/ray" if len(temp_dir) > max_length else None


def _check_reachable(address: str) -> None:
    """Fail fast: on an unreachable address Ray hangs for up to a minute and may then exit the process."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("http://").rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise UserError(f"the address of a Ray cluster must be host:port, got {address}: {FIX}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(f"no Ray cluster at {address} ({error}): {FIX}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
