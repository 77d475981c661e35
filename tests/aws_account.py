"""A simulated AWS account: moto as an HTTP server on loopback, with the stack of the project's template."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE, TEMPLATE = ROOT / "ray_cluster.yaml", ROOT / "cluster" / "aws" / "prerequisites.yaml"
REGION, STACK = "us-west-2", "world-models"
MACHINE_IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
TAGS = ("0.1.0-cpu", "0.1.0-gpu")


@dataclass
class Account:
    """Has a network, a key pair, a machine image and, after `make_stack`, the stack of the template."""

    endpoint: str
    machine_image: str = ""
    metadata: str = ""  # the block that the stack outputs
    asked: list[str] = field(default_factory=list)  # all actions of EC2

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(service, region_name=REGION)

    def make_stack(self, **parameters: str) -> dict[str, str]:
        vpc = self.client("ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]
        values = {"VpcId": vpc["VpcId"], "SshFrom": "203.0.113.7/32", **parameters}
        stacks = self.client("cloudformation")
        stacks.create_stack(
            StackName=STACK,
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        stack = stacks.describe_stacks(StackName=STACK)["Stacks"][0]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def delete_stack(self) -> None:
        ecr = self.client("ecr")
        with contextlib.suppress(ecr.exceptions.RepositoryNotFoundException):  # moto does not implement EmptyOnDelete
            ecr.batch_delete_image(repositoryName=STACK, imageIds=[{"imageTag": tag} for tag in TAGS])
        self.client("cloudformation").delete_stack(StackName=STACK)

    def push_images(self) -> None:
        """Push dummy images with the tags in ray_cluster.yaml."""
        for size, tag in enumerate(TAGS, 1):
            manifest = {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {"mediaType": "image", "size": size, "digest": f"sha256:{size:064d}"},
                "layers": [],
            }
            self.client("ecr").put_image(repositoryName=STACK, imageManifest=json.dumps(manifest), imageTag=tag)

    def instances(self) -> list[dict[str, Any]]:
        found = self.client("ec2").describe_instances()["Reservations"]
        alive = ("pending", "running")
        return [one for some in found for one in some["Instances"] if one["State"]["Name"] in alive]


@contextlib.contextmanager
def an_account() -> Iterator[Account]:
    """A new account, emptied at the end, since moto has one state per process that other tests use, too."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.ec2.models import ec2_backends
    from moto.ec2.responses.instances import InstanceResponse
    from moto.server import ThreadedMotoServer
    from moto.ssm.models import ssm_backends

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_REGION", REGION)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        get, most = (
            InstanceResponse._get_param,
            {"MinCount": "MaxCount"},
        )  # moto starts MinCount instances, EC2 up to MaxCount
        patch.setattr(
            InstanceResponse,
            "_get_param",
            lambda self, name, *rest, **more: get(self, most.get(name, name), *rest, **more),
        )
        account = Account(os.environ["AWS_ENDPOINT_URL"])
        action = InstanceResponse._get_action
        patch.setattr(InstanceResponse, "_get_action", lambda self: account.asked.append(action(self)) or action(self))
        ec2, ssm = account.client("ec2"), account.client("ssm")
        ec2.create_key_pair(KeyName=STACK)
        account.machine_image = ec2.register_image(
            Name="Deep Learning Base", RootDeviceName="/dev/sda1", VirtualizationType="hvm"
        )["ImageId"]
        ec2_backends[DEFAULT_ACCOUNT_ID][REGION].amis[account.machine_image].architecture = "x86_64"
        ssm.put_parameter(Name="machine-image", Value=account.machine_image, Type="String")
        published = ssm_backends[DEFAULT_ACCOUNT_ID][REGION]._parameters  # clients can't write parameters of AWS
        published[MACHINE_IMAGE] = published["machine-image"]
        try:
            yield account
        finally:
            ids = [one["InstanceId"] for one in account.instances()]
            if ids:
                ec2.terminate_instances(InstanceIds=ids)
            account.delete_stack()
            ec2.deregister_image(ImageId=account.machine_image)
            ec2.delete_key_pair(KeyName=STACK)
            del published[MACHINE_IMAGE]
            ssm.delete_parameter(Name="machine-image")
            server.stop()


def our_file(folder: Path, metadata: str) -> Path:
    """ray_cluster.yaml with the block that the stack outputs, as described in docs/aws.md."""
    head, rest = FILE.read_text().split("# ---- yours: begin ----\n")
    tail = rest.split("# ---- yours: end ----\n")[1]
    path = folder / "ray_cluster.yaml"
    path.write_text(f"{head}{metadata}{tail}")
    return path


def a_home(folder: Path) -> Path:
    """A home folder with the SSH key and the token of a user."""
    for name, content in ((".ssh/world-models.pem", "-----BEGIN RSA PRIVATE KEY-----"), (".ray/auth_token", "a-token")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o600)
    return folder
