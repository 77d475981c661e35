"""Reads ray_cluster.yaml and checks it without access to AWS."""

import contextlib
import copy
import importlib.metadata
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wm.errors import UserError

PLACEHOLDERS = ("ami-00000000000000000", "sg-00000000000000000", "000000000000")  # placeholders in ray_cluster.yaml
OUR_PROVIDER = "cluster.aws.nodes.Nodes"
TOKEN = "~/.ray/auth_token"


@dataclass(frozen=True)
class NodeType:
    name: str
    head: bool
    max_nodes: int
    config: dict[str, Any]  # arguments of EC2's RunInstances
    instead: tuple[str, ...] = ()  # fallback instance types
    gpus: int = 0

    @property
    def instance_types(self) -> tuple[str, ...]:
        return (self.config["InstanceType"], *self.instead)

    @property
    def spot(self) -> bool:
        return self.config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"

    @property
    def profile(self) -> str:
        return self.config.get("IamInstanceProfile", {}).get("Name", "")

    def disk(self, device: str) -> int:
        """Size of the disk in GB, or 0 if it is not set."""
        disks = self.config.get("BlockDeviceMappings", [])
        return max((disk["Ebs"]["VolumeSize"] for disk in disks if disk["DeviceName"] == device), default=0)


@dataclass(frozen=True)
class ClusterFile:
    """The content of ray_cluster.yaml."""

    path: str
    config: dict[str, Any]

    @property
    def region(self) -> str:
        return self.config["provider"]["region"]

    @property
    def bucket(self) -> str:
        return str(self.config.get("metadata", {}).get("bucket", "")).removeprefix("s3://").partition("/")[0]

    @property
    def key_file(self) -> Path:
        return Path(self.config["auth"].get("ssh_private_key", "")).expanduser()

    @property
    def node_types(self) -> list[NodeType]:
        """The head and all types with max_workers above 0."""
        node_types = [
            NodeType(
                name=name,
                head=name == self.config["head_node_type"],
                max_nodes=min(node_type.get("max_workers", self.config["max_workers"]), self.config["max_workers"]),
                config=node_type["node_config"],
                gpus=int(node_type.get("resources", {}).get("GPU", 0)),
                instead=tuple(
                    self.config["provider"].get("instead", {}).get(node_type["node_config"]["InstanceType"], [])
                ),
            )
            for name, node_type in self.config["available_node_types"].items()
        ]
        return [node_type for node_type in node_types if node_type.head or node_type.max_nodes]

    @property
    def images(self) -> list[str]:
        """Distinct container images."""
        docker = self.config.get("docker", {})
        by_type = [node_type.get("docker", {}) for node_type in self.config["available_node_types"].values()]
        found = [section.get(key) for section in (docker, *by_type) for key in ("image", "head_image", "worker_image")]
        return list(dict.fromkeys(image for image in found if image))


def read(path: str) -> ClusterFile:
    try:
        config = yaml.safe_load(Path(path).expanduser().read_text())
    except OSError as error:
        raise UserError(f"can't read {path} ({error.strerror}): pass the path of ray_cluster.yaml") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML ({_one_line(error)}): fix that line") from None
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise UserError(f"{path} is not a Ray cluster config: start from this project's ray_cluster.yaml")
    provider = config["provider"]
    if (provider.get("type") != "aws" and provider.get("module") != OUR_PROVIDER) or not provider.get("region"):
        raise UserError(f"{path} is not for AWS: set provider.module to {OUR_PROVIDER}, and provider.region")
    return ClusterFile(path, config)


def valid_for_ray(file: ClusterFile) -> str:
    from ray.autoscaler._private.util import prepare_config, validate_config

    if file.config["provider"].get("module") == OUR_PROVIDER and not _installed():
        raise UserError("`ray up` can't import this project's node provider: run pip install -e '.[aws]'")
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
    try:
        validate_config(prepare_config(copy.deepcopy(file.config)))
    except Exception as error:
        raise UserError(f"Ray rejects {file.path} ({_one_line(error)}): fix that entry") from None
    return f"{len(file.node_types)} node types"


def filled(file: ClusterFile) -> str:
    """No placeholder is left, and the region is the same in both places."""
    found = sorted({word for word in PLACEHOLDERS if word in str(file.config)})
    if found:
        raise UserError(
            f"{file.path} contains the placeholder {', '.join(found)}: insert the block that the stack prints between"
            " `yours: begin` and `yours: end` (docs/aws.md, step 3)"
        )
    option = f"AWS_REGION={file.region}"
    if not any(option in word for word in file.config.get("docker", {}).get("run_options", [])):
        raise UserError(f"docker.run_options must contain `-e {option}`: set region_option to it")
    return "all placeholders are filled in"


def region(file: ClusterFile) -> str:
    import boto3

    known = boto3.Session().get_available_regions("ec2")
    if file.region not in known:
        raise UserError(f"region must be one of {', '.join(known)}, got {file.region}")
    return file.region


def valid_for_ec2(file: ClusterFile) -> str:
    """Check node_config, which Ray passes to EC2 unchecked: a typo would only show at the first launch."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for node_type in file.node_types:
        values = {
            key: value for key, value in node_type.config.items() if key != "SubnetIds"
        }  # a key of Ray, not of EC2
        report = ParamValidator().validate({**values, "MinCount": 1, "MaxCount": 1}, shape)
        if report.has_errors():
            wrong = _one_line(report.generate_report())
            raise UserError(f"EC2 rejects {node_type.name}.node_config ({wrong}): fix that entry")
        if "SecurityGroupIds" not in node_type.config:
            raise UserError(f"{node_type.name} must set SecurityGroupIds: Ray's default group is open to the world")
        if node_type.config.get("MetadataOptions", {}).get("HttpTokens") != "required":
            raise UserError(f"{node_type.name} allows IMDSv1: set MetadataOptions.HttpTokens to required")
    return ", ".join(f"{node_type.name}: {' or '.join(node_type.instance_types)}" for node_type in file.node_types)


def key_file(file: ClusterFile) -> str:
    _check_private(file.key_file, "the key file", "run `aws ec2 create-key-pair` (docs/aws.md, step 1)")
    if b"PRIVATE KEY" not in file.key_file.read_bytes():
        raise UserError(f"{file.key_file} contains no private key: set key_file to the .pem file of the key pair")
    return str(file.key_file)


def token(file: ClusterFile) -> str:
    path = Path(TOKEN).expanduser()
    _check_private(path, "the token", f"run `ray get-auth-token --generate && chmod 600 {TOKEN}`")
    if not path.read_text().strip():
        raise UserError(f"{path} is empty: run `ray get-auth-token --generate`")
    if TOKEN not in file.config.get("file_mounts", {}):
        raise UserError(f"the nodes get no token: add `{TOKEN}: {TOKEN}` to file_mounts")
    if not any("RAY_AUTH_MODE=token" in word for word in file.config.get("docker", {}).get("run_options", [])):
        raise UserError("the nodes don't require the token: add `-e RAY_AUTH_MODE=token` to docker.run_options")
    return str(path)


def _installed() -> bool:
    """Whether the ray command can import this project. It does not search the working directory."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version("world-models-ray"))
    return "PYTHONPATH" in os.environ


def _check_private(path: Path, what: str, fix: str) -> None:
    if not path.is_file():
        raise UserError(f"{what} {path} is missing: {fix}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UserError(f"mode of {what} {path} must be 600, got {mode:o}: run chmod 600 {path}")
    if not os.access(path, os.R_OK):
        raise UserError(f"can't read {what} {path}: run chmod 600 {path} as its owner")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
