"""Checks the AWS account for what the cluster needs. Read-only, except for one small test object in the bucket."""

import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

from cluster.aws.plan import ClusterFile, NodeType
from wm.errors import UserError

STACK_FIX = "create the stack in cluster/aws/prerequisites.yaml (docs/aws.md, step 2)"
ACCESS_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "Forbidden")
MIN_DRIVER = 580  # of CUDA 13.0, for which PyPI's torch is built
DRIVER = re.compile(r"driver\D{0,20}(\d{3})\.\d", re.IGNORECASE)
NOT_FOUND = ("NotFound", "NoSuch", "Malformed", "InvalidInstanceType", "404")
INVALID_CREDENTIALS = (
    "ExpiredToken",
    "InvalidClientTokenId",
    "AuthFailure",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
# EC2 has one vCPU quota for each group of instance families and market (on-demand or spot): its code and name.
QUOTAS = {
    ("standard", False): ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
    ("standard", True): ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    ("g", False): ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("g", True): ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("p", False): ("L-417A185B", "Running On-Demand P instances"),
    ("p", True): ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
}


class Account:
    def __init__(self, file: ClusterFile):
        self.file = file

    def client(self, service: str) -> Any:
        from botocore.config import Config

        settings = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3, "mode": "standard"})
        return self.session.client(service, config=settings)

    @cached_property
    def session(self) -> Any:
        import boto3
        from botocore.exceptions import ProfileNotFound

        try:
            return boto3.Session(region_name=self.file.region)
        except ProfileNotFound as error:
            raise UserError(
                f"{error}: set AWS_PROFILE to a profile that `aws configure list-profiles` prints"
            ) from None

    @cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    @cached_property
    def account_id(self) -> str:
        return call_api(self.client("sts").get_caller_identity)["Account"]

    def credentials(self) -> str:
        name = self.file.region
        for region in call_api(self.ec2.describe_regions, AllRegions=True)["Regions"]:
            if region["RegionName"] == name and region.get("OptInStatus") == "not-opted-in":
                raise UserError(f"region {name} is disabled in this account: enable it or choose another region")
        return f"account {self.account_id}"

    def key_pair(self) -> str:
        names = sorted({node_type.config.get("KeyName", "") for node_type in self.file.node_types})
        for name in names:
            with explain_missing(
                f"no key pair {name} in {self.file.region}: run `aws ec2 create-key-pair` (docs/aws.md, step 1)"
            ):
                call_api(self.ec2.describe_key_pairs, KeyNames=[name])
        return ", ".join(names)

    def security_group(self) -> str:
        ids = sorted({id for node_type in self.file.node_types for id in node_type.config.get("SecurityGroupIds", [])})
        with explain_missing(f"no security group {', '.join(ids)} in {self.file.region}: {STACK_FIX}"):
            groups = call_api(self.ec2.describe_security_groups, GroupIds=ids)["SecurityGroups"]
        rules = [(group["GroupId"], rule) for group in groups for rule in group["IpPermissions"]]
        for group, rule in rules:
            world = [r["CidrIp"] for r in rule["IpRanges"]] + [r["CidrIpv6"] for r in rule.get("Ipv6Ranges", [])]
            if any(cidr.endswith("/0") for cidr in world):
                raise UserError(f"security group {group} is open to the world: allow ssh from your own address only")
        if not any(pair["GroupId"] == group for group, rule in rules for pair in rule["UserIdGroupPairs"]):
            raise UserError(f"security group {', '.join(ids)} blocks traffic between its own nodes: {STACK_FIX}")
        self._check_subnets({group["VpcId"] for group in groups})
        return ", ".join(ids)

    def _check_subnets(self, networks: set[str]) -> None:
        if len(networks) != 1:
            raise UserError(f"SecurityGroupIds must name groups of one VPC, got {', '.join(sorted(networks))}")
        filters = [{"Name": "vpc-id", "Values": list(networks)}]
        subnets = call_api(self.ec2.describe_subnets, Filters=filters)["Subnets"]
        if not any(subnet["MapPublicIpOnLaunch"] for subnet in subnets):
            raise UserError(f"no subnet in {networks.pop()} assigns public addresses: create the stack in another VPC")

    def profiles(self) -> str:
        iam, roles = self.client("iam"), {}
        for name in sorted({node_type.profile for node_type in self.file.node_types}):
            with explain_missing(f"no instance profile {name or '(none set)'}: {STACK_FIX}"):
                profile = call_api(iam.get_instance_profile, InstanceProfileName=name)["InstanceProfile"]
            if not profile["Roles"]:
                raise UserError(f"the instance profile {name} has no role: {STACK_FIX}")
            roles[name] = profile["Roles"][0]["RoleName"]
        heads = {roles[node_type.profile] for node_type in self.file.node_types if node_type.head}
        shared = heads & {roles[node_type.profile] for node_type in self.file.node_types if not node_type.head}
        if shared:
            raise UserError(
                f"workers must not use the head's role {shared.pop()}, which can start instances: set their own profile"
            )
        return ", ".join(roles)

    def machine_image(self) -> str:
        names = []
        for ami in sorted({node_type.config.get("ImageId", "") for node_type in self.file.node_types}):
            with explain_missing(
                f"no machine image {ami} in {self.file.region}: see the comment above machine_image in the file"
            ):
                images = call_api(self.ec2.describe_images, ImageIds=[ami])["Images"]
            if not images or images[0]["State"] != "available":
                raise UserError(
                    f"no machine image {ami} in {self.file.region}: see the comment above machine_image in the file"
                )
            self._check_image(images[0])
            names.append(images[0].get("Name", ami) + self._driver(images[0]))
        return ", ".join(names)

    def _check_image(self, image: dict[str, Any]) -> None:
        ami, root = image["ImageId"], image["RootDeviceName"]
        if image["Architecture"] != "x86_64":
            raise UserError(f"machine image {ami} must be for x86_64, got {image['Architecture']}: choose another one")
        min_size = max(
            (disk["Ebs"].get("VolumeSize", 0) for disk in image["BlockDeviceMappings"] if "Ebs" in disk), default=0
        )
        for node_type in self.file.node_types:
            if node_type.config.get("ImageId") != ami:
                continue
            size = node_type.disk(root)
            if not size:
                raise UserError(
                    f"{node_type.name} must map {root}, the root device of {ami}: add it to BlockDeviceMappings"
                )
            if size < min_size:
                raise UserError(
                    f"VolumeSize of {node_type.name} must be at least {min_size} for {ami}, got {size}: set it to"
                    f" {min_size + 40} or more"
                )

    def _driver(self, image: dict[str, Any]) -> str:
        """The GPU driver, if a node type with GPUs uses the image and its name or description says which it has."""
        ami = image["ImageId"]
        if not any(node_type.gpus and node_type.config.get("ImageId") == ami for node_type in self.file.node_types):
            return ""
        found = DRIVER.search(f"{image.get('Name', '')} {image.get('Description', '')}")
        if not found:
            return f" (driver not stated: it must be {MIN_DRIVER} or later, see nvidia-smi on the GPU node)"
        if int(found[1]) < MIN_DRIVER:
            raise UserError(
                f"machine image {ami} has NVIDIA driver {found[1]}, torch needs {MIN_DRIVER} or later for CUDA 13.0:"
                " see the comment above machine_image in the file"
            )
        return f" (driver {found[1]})"

    def instance_types(self) -> str:
        wanted = sorted({name for node_type in self.file.node_types for name in node_type.instance_types})
        filters = [{"Name": "instance-type", "Values": wanted}]
        pages = self.ec2.get_paginator("describe_instance_type_offerings").paginate(Filters=filters)
        found = {
            offer["InstanceType"] for page in call_api(lambda: list(pages)) for offer in page["InstanceTypeOfferings"]
        }
        missing = [name for name in wanted if name not in found]
        if missing:
            raise UserError(
                f"{self.file.region} does not offer {', '.join(missing)}: use other instance types or another region"
            )
        return ", ".join(wanted)

    def quotas(self) -> str:
        """Fail if a quota is too small for one node. A quota below the maximum cluster size is only reported."""
        cpus, client, results = self._vcpus(), self.client("service-quotas"), []
        by_quota: dict[tuple[str, bool], list[NodeType]] = {}
        for node_type in self.file.node_types:
            by_quota.setdefault((_quota_group(node_type.instance_types[0]), node_type.spot), []).append(node_type)
        for key, members in by_quota.items():
            if key not in QUOTAS:
                results.append(f"not checked: {members[0].instance_types[0]}")
                continue
            code, title = QUOTAS[key]
            quota = int(call_api(client.get_service_quota, ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
            needed = max(cpus[node_type.instance_types[0]] for node_type in members)
            maximum = sum(
                cpus[node_type.instance_types[0]] * (1 if node_type.head else node_type.max_nodes)
                for node_type in members
            )
            if quota < needed:
                raise UserError(
                    f"the quota `{title}` must be at least {needed} vCPUs for one {members[0].instance_types[0]}, got"
                    f" {quota}: run `aws service-quotas request-service-quota-increase --service-code ec2"
                    f" --quota-code {code} --desired-value {maximum} --region {self.file.region}` (takes hours to"
                    f" days), or set max_workers of {members[0].name} to 0"
                )
            results.append(f"{title}: {quota} of {maximum} vCPUs" if quota < maximum else f"{title}: {quota} vCPUs")
        return "; ".join(results)

    def _vcpus(self) -> dict[str, int]:
        wanted = sorted({name for node_type in self.file.node_types for name in node_type.instance_types})
        with explain_missing("not checked: the region does not offer all instance types, see instance_types"):
            found = call_api(self.ec2.describe_instance_types, InstanceTypes=wanted)["InstanceTypes"]
        return {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for each in found}

    def images(self) -> str:
        results = []
        for image in self.file.images:
            host, _, rest = image.partition("/")
            name, _, tag = rest.partition(":")
            if ".dkr.ecr." not in host:
                results.append(f"{image} (not checked: not in ECR)")
                continue
            number, _, _, region = host.split(".")[:4]
            if (number, region) != (self.account_id, self.file.region):
                raise UserError(
                    f"{image} must be in account {self.account_id} and {self.file.region}, got {number} and {region}"
                )
            with explain_missing(f"no image {image}: build and push it (docs/aws.md, step 4)"):
                call_api(self.client("ecr").describe_images, repositoryName=name, imageIds=[{"imageTag": tag}])
            results.append(f"{name}:{tag}")
        return ", ".join(results)

    def bucket(self) -> str:
        """The bucket must be writable, in the same region, and support put-if-absent, which runs rely on."""
        name, s3 = self.file.bucket, self.client("s3")
        if not name:
            raise UserError("no bucket in the cluster file: set metadata.bucket to s3://...")
        with explain_missing(f"no bucket {name}: {STACK_FIX}"):
            where = call_api(s3.get_bucket_location, Bucket=name)["LocationConstraint"] or "us-east-1"
        if where != self.file.region:
            raise UserError(
                f"bucket {name} must be in {self.file.region} to avoid transfer costs, got {where}: choose another one"
            )
        key = f".preflight-{secrets.token_hex(8)}"
        call_api(s3.put_object, Bucket=name, Key=key, Body=b"1", IfNoneMatch="*")
        try:
            s3.put_object(Bucket=name, Key=key, Body=b"2", IfNoneMatch="*")
        except s3.exceptions.ClientError:
            return f"s3://{name}"
        finally:
            with suppress(s3.exceptions.ClientError):
                s3.delete_object(Bucket=name, Key=key)
        raise UserError(f"bucket {name} ignores If-None-Match, which runs rely on: use a bucket on AWS S3")


def _quota_group(instance_type: str) -> str:
    """The quota group of an instance type: c6id.4xlarge is in family c, which counts as standard."""
    letters = re.match("[a-z]*", instance_type)
    family = letters.group() if letters else ""
    return {"g": "g", "vt": "g", "p": "p"}.get(family, "standard" if family in set("acdhimrtz") else family)


class explain_missing:
    """Context manager that turns a not-found error of AWS into a UserError with this message."""

    def __init__(self, message: str):
        self.message = message

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, _NotFound):
            raise UserError(self.message) from None


class _NotFound(Exception):
    pass


def call_api(call: Callable[..., Any], **arguments: Any) -> Any:
    """Call an AWS API. Raises _NotFound, or a UserError with a fix for any other error."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.parsers import ResponseParserError

    try:
        return call(**arguments)
    except NoCredentialsError:
        raise UserError("no AWS credentials: run `aws configure` or `aws sso login`, or set AWS_PROFILE") from None
    except ClientError as error:
        code, what = error.response["Error"]["Code"], error.operation_name
        if code in INVALID_CREDENTIALS:
            raise UserError(f"AWS rejected the credentials ({code}): run `aws sso login` or `aws configure`") from None
        if code in ACCESS_DENIED:
            raise UserError(
                f"your credentials don't allow {what}: add this permission to your IAM user or role"
            ) from None
        if any(word in code for word in NOT_FOUND):
            raise _NotFound from None
        raise UserError(f"AWS rejected {what} ({code}): {error.response['Error'].get('Message', '')}") from None
    except (BotoCoreError, ResponseParserError) as error:
        raise UserError(f"can't reach AWS ({error}): check the network, and AWS_ENDPOINT_URL if it is set") from None
