"""What the AWS account has, and what the cluster will miss. Only looks, but for one small object in the bucket."""

import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

from cluster.aws.plan import NodeType, Plan
from wm.errors import UserError

STACK = "the stack of cluster/aws/prerequisites.yaml makes it (docs/aws.md, step 2)"
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "Forbidden")
ABSENT = ("NotFound", "NoSuch", "Malformed", "InvalidInstanceType", "404")
EXPIRED = (
    "ExpiredToken",
    "InvalidClientTokenId",
    "AuthFailure",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
# EC2 counts vCPUs by family and by market, each against a quota of its own: its code and its name.
QUOTAS = {
    ("standard", False): ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
    ("standard", True): ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    ("g", False): ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("g", True): ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("p", False): ("L-417A185B", "Running On-Demand P instances"),
    ("p", True): ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
}


class Account:
    def __init__(self, plan: Plan):
        self.plan = plan

    def client(self, service: str) -> Any:
        from botocore.config import Config

        settings = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3, "mode": "standard"})
        return self.session.client(service, config=settings)

    @cached_property
    def session(self) -> Any:
        import boto3
        from botocore.exceptions import ProfileNotFound

        try:
            return boto3.Session(region_name=self.plan.region)
        except ProfileNotFound as error:
            raise UserError(f"{error}: set AWS_PROFILE to one that `aws configure list-profiles` lists") from None

    @cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    @cached_property
    def number(self) -> str:
        return ask(self.client("sts").get_caller_identity)["Account"]

    def credentials(self) -> str:
        name = self.plan.region
        for region in ask(self.ec2.describe_regions, AllRegions=True)["Regions"]:
            if region["RegionName"] == name and region.get("OptInStatus") == "not-opted-in":
                raise UserError(f"the region {name} is switched off in this account: switch it on, or take another")
        return f"account {self.number}"

    def key_pair(self) -> str:
        names = sorted({kind.config.get("KeyName", "") for kind in self.plan.node_types})
        for name in names:
            with absent(f"no key pair {name} in {self.plan.region}: `aws ec2 create-key-pair` makes one (docs/aws.md)"):
                ask(self.ec2.describe_key_pairs, KeyNames=[name])
        return ", ".join(names)

    def security_group(self) -> str:
        ids = sorted({one for kind in self.plan.node_types for one in kind.config.get("SecurityGroupIds", [])})
        with absent(f"no security group {', '.join(ids)} in {self.plan.region}: {STACK}"):
            groups = ask(self.ec2.describe_security_groups, GroupIds=ids)["SecurityGroups"]
        rules = [(group["GroupId"], rule) for group in groups for rule in group["IpPermissions"]]
        for group, rule in rules:
            world = [r["CidrIp"] for r in rule["IpRanges"]] + [r["CidrIpv6"] for r in rule.get("Ipv6Ranges", [])]
            if any(cidr.endswith("/0") for cidr in world):
                raise UserError(
                    f"{group} is open to the world: let in your own address only, as the stack's group does"
                )
        if not any(pair["GroupId"] == group for group, rule in rules for pair in rule["UserIdGroupPairs"]):
            raise UserError(f"{', '.join(ids)} keeps its own nodes from talking to each other: {STACK}")
        self._subnets({group["VpcId"] for group in groups})
        return ", ".join(ids)

    def _subnets(self, networks: set[str]) -> None:
        if len(networks) != 1:
            raise UserError(f"the security groups lie in different networks ({', '.join(sorted(networks))}): take one")
        asked = [{"Name": "vpc-id", "Values": list(networks)}]
        subnets = ask(self.ec2.describe_subnets, Filters=asked)["Subnets"]
        if not any(subnet["MapPublicIpOnLaunch"] for subnet in subnets):
            raise UserError(
                f"no subnet of {networks.pop()} gives its nodes public addresses: make the stack in another VPC"
            )

    def profiles(self) -> str:
        iam, roles = self.client("iam"), {}
        for name in sorted({kind.profile for kind in self.plan.node_types}):
            with absent(f"no instance profile {name or '(none set)'}: {STACK}"):
                profile = ask(iam.get_instance_profile, InstanceProfileName=name)["InstanceProfile"]
            if not profile["Roles"]:
                raise UserError(f"the instance profile {name} has no role: {STACK}")
            roles[name] = profile["Roles"][0]["RoleName"]
        heads = {roles[kind.profile] for kind in self.plan.node_types if kind.head}
        shared = heads & {roles[kind.profile] for kind in self.plan.node_types if not kind.head}
        if shared:
            raise UserError(
                f"workers have the head's role {shared.pop()}, which may start machines: give them their own"
            )
        return ", ".join(roles)

    def machine_image(self) -> str:
        names = []
        for ami in sorted({kind.config.get("ImageId", "") for kind in self.plan.node_types}):
            with absent(f"no machine image {ami} in {self.plan.region}: the comment above machine_image finds one"):
                images = ask(self.ec2.describe_images, ImageIds=[ami])["Images"]
            if not images or images[0]["State"] != "available":
                raise UserError(
                    f"no machine image {ami} in {self.plan.region}: the comment above machine_image finds one"
                )
            self._fits(images[0])
            names.append(images[0].get("Name", ami))
        return ", ".join(names)

    def _fits(self, image: dict[str, Any]) -> None:
        ami, root = image["ImageId"], image["RootDeviceName"]
        if image["Architecture"] != "x86_64":
            raise UserError(
                f"{ami} is for {image['Architecture']}, the node types are x86_64: take another machine image"
            )
        own = max(
            (disk["Ebs"].get("VolumeSize", 0) for disk in image["BlockDeviceMappings"] if "Ebs" in disk), default=0
        )
        for kind in self.plan.node_types:
            if kind.config.get("ImageId") != ami:
                continue
            size = kind.disk(root)
            if not size:
                raise UserError(
                    f"{ami} has its root on {root}: give {kind.name} a BlockDeviceMappings entry of that name"
                )
            if size < own:
                raise UserError(f"{ami} needs {own} GB: set {kind.name}'s VolumeSize to {own + 40} or more")

    def instance_types(self) -> str:
        wanted = sorted({one for kind in self.plan.node_types for one in kind.instance_types})
        asked = [{"Name": "instance-type", "Values": wanted}]
        pages = self.ec2.get_paginator("describe_instance_type_offerings").paginate(Filters=asked)
        found = {one["InstanceType"] for page in ask(lambda: list(pages)) for one in page["InstanceTypeOfferings"]}
        missing = [name for name in wanted if name not in found]
        if missing:
            raise UserError(
                f"{self.plan.region} has no {', '.join(missing)}: take out what needs them, or another region"
            )
        return ", ".join(wanted)

    def quotas(self) -> str:
        """Room for one node of each kind at least; how many of all is only said."""
        cpus, client, said = self._cpus(), self.client("service-quotas"), []
        kinds: dict[tuple[str, bool], list[NodeType]] = {}
        for kind in self.plan.node_types:
            kinds.setdefault((_family(kind.instance_types[0]), kind.spot), []).append(kind)
        for which, members in kinds.items():
            if which not in QUOTAS:
                said.append(f"not checked: {members[0].instance_types[0]}")
                continue
            code, title = QUOTAS[which]
            has = int(ask(client.get_service_quota, ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
            one = max(cpus[kind.instance_types[0]] for kind in members)
            most = sum(cpus[kind.instance_types[0]] * (1 if kind.head else kind.most) for kind in members)
            if has < one:
                raise UserError(
                    f"the quota `{title}` is {has} vCPUs, one {members[0].instance_types[0]} takes {one}: `aws "
                    f"service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} "
                    f"--desired-value {most} "
                    f"--region {self.plan.region}` (hours to days), or set max_workers of {members[0].name} to 0"
                )
            said.append(f"{title}: {has} of {most} vCPUs" if has < most else f"{title}: {has} vCPUs")
        return "; ".join(said)

    def _cpus(self) -> dict[str, int]:
        wanted = sorted({one for kind in self.plan.node_types for one in kind.instance_types})
        with absent("unknown for types that the region does not have: see instance_types"):
            found = ask(self.ec2.describe_instance_types, InstanceTypes=wanted)["InstanceTypes"]
        return {one["InstanceType"]: one["VCpuInfo"]["DefaultVCpus"] for one in found}

    def images(self) -> str:
        said = []
        for image in self.plan.images:
            host, _, rest = image.partition("/")
            name, _, tag = rest.partition(":")
            if ".dkr.ecr." not in host:
                said.append(f"{image} (not checked: no registry of AWS)")
                continue
            number, _, _, region = host.split(".")[:4]
            if (number, region) != (self.number, self.plan.region):
                raise UserError(
                    f"{image} is of account {number} in {region}, you are {self.number} in {self.plan.region}"
                )
            with absent(f"{image} has not been pushed: build and push it (docs/aws.md, step 4)"):
                ask(self.client("ecr").describe_images, repositoryName=name, imageIds=[{"imageTag": tag}])
            said.append(f"{name}:{tag}")
        return ", ".join(said)

    def bucket(self) -> str:
        """There, near, writable, and true to put-if-absent, on which the safety of runs rests."""
        name, s3 = self.plan.bucket, self.client("s3")
        if not name:
            raise UserError("the file names no bucket: set metadata.bucket to s3://...")
        with absent(f"no bucket {name}: {STACK}"):
            where = ask(s3.get_bucket_location, Bucket=name)["LocationConstraint"] or "us-east-1"
        if where != self.plan.region:
            raise UserError(
                f"the bucket {name} is in {where}, the cluster in {self.plan.region}: traffic would cost; move one"
            )
        key = f".preflight-{secrets.token_hex(8)}"
        ask(s3.put_object, Bucket=name, Key=key, Body=b"1", IfNoneMatch="*")
        try:
            s3.put_object(Bucket=name, Key=key, Body=b"2", IfNoneMatch="*")
        except s3.exceptions.ClientError:
            return f"s3://{name}"
        finally:
            with suppress(s3.exceptions.ClientError):
                s3.delete_object(Bucket=name, Key=key)
        raise UserError(
            f"{name} overwrites what must be put only if absent (If-None-Match): take a bucket of S3 itself"
        )


def _family(instance_type: str) -> str:
    """c6id.4xlarge is of family c, which counts as standard."""
    letters = re.match("[a-z]*", instance_type)
    family = letters.group() if letters else ""
    return {"g": "g", "vt": "g", "p": "p"}.get(family, "standard" if family in set("acdhimrtz") else family)


class absent:
    """Whatever says that the thing is not there is said in our words."""

    def __init__(self, message: str):
        self.message = message

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, _NotThere):
            raise UserError(self.message) from None


class _NotThere(Exception):
    pass


def ask(call: Callable[..., Any], **arguments: Any) -> Any:
    """One question to AWS; whatever goes wrong with it is a mistake with a cure, or _NotThere."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.parsers import ResponseParserError

    try:
        return call(**arguments)
    except NoCredentialsError:
        raise UserError("no AWS credentials: `aws configure`, `aws sso login`, or set AWS_PROFILE") from None
    except ClientError as error:
        code, what = error.response["Error"]["Code"], error.operation_name
        if code in EXPIRED:
            raise UserError(
                f"AWS does not accept the credentials ({code}): `aws sso login` or `aws configure`"
            ) from None
        if code in DENIED:
            raise UserError(f"your credentials don't allow {what}: have it allowed for the one who runs this") from None
        if any(word in code for word in ABSENT):
            raise _NotThere from None
        raise UserError(f"AWS refuses {what} ({code}): {error.response['Error'].get('Message', '')}") from None
    except (BotoCoreError, ResponseParserError) as error:
        raise UserError(
            f"can't reach AWS ({error}): check the network, and AWS_ENDPOINT_URL if you have set it"
        ) from None
