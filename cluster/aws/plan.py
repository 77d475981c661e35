"""What ray_cluster.yaml asks for, and what is wrong with it that can be seen without asking AWS."""

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

UNFILLED = ("ami-00000000000000000", "sg-00000000000000000", "000000000000")  # as the file comes
OUR_PROVIDER = "cluster.aws.nodes.Nodes"
TOKEN = "~/.ray/auth_token"


@dataclass(frozen=True)
class NodeType:
    name: str
    head: bool
    most: int  # nodes of it at one time
    config: dict[str, Any]  # as EC2's RunInstances takes it
    instead: tuple[str, ...] = ()  # instance types that take the place of its own

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
        """Its size in GB where it is set, else 0."""
        disks = self.config.get("BlockDeviceMappings", [])
        return max((disk["Ebs"]["VolumeSize"] for disk in disks if disk["DeviceName"] == device), default=0)


@dataclass(frozen=True)
class Plan:
    path: str
    config: dict[str, Any]

    @property
    def region(self) -> str:
        return self.config["provider"]["region"]

    @property
    def bucket(self) -> str:
        """Its name."""
        return str(self.config.get("metadata", {}).get("bucket", "")).removeprefix("s3://").partition("/")[0]

    @property
    def key_file(self) -> Path:
        return Path(self.config["auth"].get("ssh_private_key", "")).expanduser()

    @property
    def node_types(self) -> list[NodeType]:
        """Those that can be started at all."""
        kinds = [
            NodeType(
                name=name,
                head=name == self.config["head_node_type"],
                most=min(kind.get("max_workers", self.config["max_workers"]), self.config["max_workers"]),
                config=kind["node_config"],
                instead=tuple(self.config["provider"].get("instead", {}).get(kind["node_config"]["InstanceType"], [])),
            )
            for name, kind in self.config["available_node_types"].items()
        ]
        return [kind for kind in kinds if kind.head or kind.most]

    @property
    def images(self) -> list[str]:
        """Of containers, without repetition."""
        docker = self.config.get("docker", {})
        own = [kind.get("docker", {}) for kind in self.config["available_node_types"].values()]
        found = [place.get(key) for place in (docker, *own) for key in ("image", "head_image", "worker_image")]
        return list(dict.fromkeys(image for image in found if image))


def read(path: str) -> Plan:
    try:
        config = yaml.safe_load(Path(path).expanduser().read_text())
    except OSError as error:
        raise UserError(f"can't read {path} ({error.strerror}): name the cluster's file, ray_cluster.yaml") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML ({_one_line(error)}): put that line right") from None
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise UserError(f"{path} is no cluster of Ray's: start again from the ray_cluster.yaml of this project")
    provider = config["provider"]
    if (provider.get("type") != "aws" and provider.get("module") != OUR_PROVIDER) or not provider.get("region"):
        raise UserError(f"{path} is not about AWS: set provider.module to {OUR_PROVIDER}, and provider.region")
    return Plan(path, config)


def valid_for_ray(plan: Plan) -> str:
    from ray.autoscaler._private.util import prepare_config, validate_config

    if plan.config["provider"].get("module") == OUR_PROVIDER and not _installed():
        raise UserError("`ray up` would not find this project's provider: pip install -e '.[aws]'")
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
    try:
        validate_config(prepare_config(copy.deepcopy(plan.config)))
    except Exception as error:
        raise UserError(f"Ray refuses the file ({_one_line(error)}): put that entry right") from None
    return f"{len(plan.node_types)} node types"


def filled(plan: Plan) -> str:
    """No line is as it came, and what is said twice is the same twice."""
    left = sorted({word for word in UNFILLED if word in str(plan.config)})
    if left:
        raise UserError(
            f"{', '.join(left)} is a place holder: put the block that the stack prints between the lines "
            f"`yours: begin` and `yours: end` of {plan.path} (docs/aws.md, step 3)"
        )
    option = f"AWS_REGION={plan.region}"
    if not any(option in word for word in plan.config.get("docker", {}).get("run_options", [])):
        raise UserError(f"the containers are not told the region: set region_option to `-e {option}`")
    return "every line of yours is set"


def region(plan: Plan) -> str:
    import boto3

    known = boto3.Session().get_available_regions("ec2")
    if plan.region not in known:
        raise UserError(f"there is no region {plan.region}: set it to one of {', '.join(known)}")
    return plan.region


def valid_for_ec2(plan: Plan) -> str:
    """Ray passes node_config on as it is, so a typo there would be found out by the first launch."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for kind in plan.node_types:
        own = {key: value for key, value in kind.config.items() if key != "SubnetIds"}  # Ray's own word
        report = ParamValidator().validate({**own, "MinCount": 1, "MaxCount": 1}, shape)
        if report.has_errors():
            wrong = _one_line(report.generate_report())
            raise UserError(f"EC2 would refuse {kind.name}.node_config ({wrong}): put that entry right")
        if "SecurityGroupIds" not in kind.config:
            raise UserError(f"{kind.name} has no SecurityGroupIds: Ray would make a group that is open to the world")
        if kind.config.get("MetadataOptions", {}).get("HttpTokens") != "required":
            raise UserError(f"{kind.name} takes IMDSv1: set MetadataOptions.HttpTokens to required")
    return ", ".join(f"{kind.name}: {' or '.join(kind.instance_types)}" for kind in plan.node_types)


def key_file(plan: Plan) -> str:
    _private(plan.key_file, "the key file", "`aws ec2 create-key-pair` makes a pair (docs/aws.md, step 1)")
    if b"PRIVATE KEY" not in plan.key_file.read_bytes():
        raise UserError(f"{plan.key_file} holds no private key: set key_file to the .pem that came with the key pair")
    return str(plan.key_file)


def token(plan: Plan) -> str:
    path = Path(TOKEN).expanduser()
    _private(path, "the token", f"`ray get-auth-token --generate && chmod 600 {TOKEN}` makes one")
    if not path.read_text().strip():
        raise UserError(f"{path} is empty: `ray get-auth-token --generate` makes a token")
    if TOKEN not in plan.config.get("file_mounts", {}):
        raise UserError(f"the nodes don't get the token: add `{TOKEN}: {TOKEN}` to file_mounts")
    if not any("RAY_AUTH_MODE=token" in word for word in plan.config.get("docker", {}).get("run_options", [])):
        raise UserError("the nodes don't ask for the token: add `-e RAY_AUTH_MODE=token` to docker.run_options")
    return str(path)


def _installed() -> bool:
    """For the ray command, which does not look into the folder it is typed in."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version("world-models-ray"))
    return "PYTHONPATH" in os.environ


def _private(path: Path, what: str, cure: str) -> None:
    if not path.is_file():
        raise UserError(f"{what} {path} is missing: {cure}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UserError(f"others may read {what} {path} (mode {mode:o}): chmod 600 {path}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{what} {path} can't be read: chmod 600 {path}, as its owner")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
