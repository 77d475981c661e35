"""The CloudFormation template: linted, deployed and deleted with moto."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_account import FILE, STACK, TEMPLATE, Account, an_account, our_file
from botocore.exceptions import ClientError

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")  # moto warns about bucket policies


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with an_account() as account:
        yield account


@pytest.fixture
def outputs(account: Account) -> Iterator[dict[str, str]]:
    yield account.make_stack()
    account.delete_stack()


def statements(account: Account, role: str) -> list[dict[str, Any]]:
    """Statements of the policies that the template attaches to the role. moto creates but does not attach them."""
    attached = [tag.strip() for tag in template()["Resources"][role]["Properties"]["ManagedPolicyArns"]]
    iam, found = account.client("iam"), []
    made = account.client("cloudformation").describe_stack_resources(StackName=STACK)["StackResources"]
    for one in made:
        if one.get("LogicalResourceId") in attached:
            arn = one["PhysicalResourceId"]
            version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            found += iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]["Statement"]
    assert "Policies" not in template()["Resources"][role]["Properties"]
    return found


def actions(statements: list[dict[str, Any]]) -> set[str]:
    listed = [one["Action"] if isinstance(one["Action"], list) else [one["Action"]] for one in statements]
    return {action for some in listed for action in some}


def template() -> dict[str, Any]:
    """The template, with CloudFormation functions replaced by their arguments."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, tag, node: node.value)
    return yaml.load(TEMPLATE.read_text(), Loader=Loader)


def test_the_template_passes_the_linter() -> None:
    lint = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([lint, TEMPLATE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_workers_can_only_use_the_bucket_and_pull_images(account: Account, outputs: dict[str, str]) -> None:
    given = statements(account, "WorkerRole")
    assert {action.split(":")[0] for action in actions(given)} == {"s3", "ecr"}
    bucket = yaml.safe_load(outputs["Metadata"])["metadata"]["bucket"].removeprefix("s3://")
    for one in given:
        if "s3:" in str(one["Action"]):
            assert one["Resource"] in (f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*")
    assert not [action for action in actions(given) if "*" in action]


def test_the_head_can_only_manage_its_own_workers_and_pass_their_role(
    account: Account, outputs: dict[str, str]
) -> None:
    given = statements(account, "HeadRole")
    worker = account.client("iam").get_role(RoleName="world-models-worker")["Role"]["Arn"]
    profile = account.client("iam").get_instance_profile(InstanceProfileName="world-models-worker")["InstanceProfile"]
    assert {one["Resource"] for one in given if one["Action"] == "iam:PassRole"} == {worker}
    started = next(one for one in given if one.get("Sid") == "StartWorkers")
    assert started["Condition"]["ArnEquals"] == {"ec2:InstanceProfile": profile["Arn"]}
    assert started["Condition"]["StringEquals"]["aws:RequestTag/ray-cluster-name"] == STACK
    ended = next(one for one in given if "ec2:TerminateInstances" in one["Action"])
    assert ended["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": STACK}}
    assert {action for action in actions(given) if action.startswith("ec2:") and "Describe" not in action} == {
        "ec2:RunInstances",
        "ec2:CreateTags",
        "ec2:TerminateInstances",
    }
    open_ended = {action for one in given if one["Resource"] == "*" for action in actions([one])}
    assert all(fnmatch(action, "ec2:Describe*") or action == "ecr:GetAuthorizationToken" for action in open_ended)


def test_the_security_group_allows_ssh_from_one_address_and_internal_traffic(
    account: Account, outputs: dict[str, str]
) -> None:
    group = yaml.safe_load(outputs["Metadata"])["metadata"]["security_group"]
    rules = account.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    ssh = next(rule for rule in rules if rule["IpProtocol"] == "tcp")
    own = next(rule for rule in rules if rule["IpProtocol"] == "-1")
    assert len(rules) == 2
    assert (ssh["FromPort"], ssh["ToPort"], [one["CidrIp"] for one in ssh["IpRanges"]]) == (22, 22, ["203.0.113.7/32"])
    assert ([pair["GroupId"] for pair in own["UserIdGroupPairs"]], own["IpRanges"]) == ([group], [])


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "203.0.113.7", "anywhere"])
def test_the_ssh_address_must_not_be_the_whole_world(cidr: str) -> None:
    pattern = template()["Parameters"]["SshFrom"]["AllowedPattern"]
    assert not re.fullmatch(pattern, cidr)
    assert re.fullmatch(pattern, "203.0.113.7/32")


def test_the_bucket_is_private_encrypted_and_aborts_unfinished_uploads() -> None:
    """Checks the template itself, since moto ignores these properties."""
    bucket = template()["Resources"]["Bucket"]
    properties = bucket["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert properties["LifecycleConfiguration"]["Rules"][0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
    assert bucket["DeletionPolicy"] == "Delete"  # S3 refuses this unless the bucket is empty


def test_the_bucket_requires_encrypted_connections() -> None:
    """Checks the template itself, since moto creates no bucket policies from templates."""
    policy = template()["Resources"]["BucketPolicy"]["Properties"]
    [denied] = policy["PolicyDocument"]["Statement"]
    assert (denied["Effect"], denied["Principal"], denied["Action"]) == ("Deny", "*", "s3:*")
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_deleting_the_stack_keeps_a_bucket_with_runs(account: Account) -> None:
    bucket = yaml.safe_load(account.make_stack()["Metadata"])["metadata"]["bucket"].removeprefix("s3://")
    account.delete_stack()
    s3, iam = account.client("s3"), account.client("iam")
    with pytest.raises(ClientError):
        s3.head_bucket(Bucket=bucket)
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="world-models-head")
    groups = account.client("ec2").describe_security_groups()["SecurityGroups"]
    assert STACK not in [group["GroupName"] for group in groups]

    account.make_stack()
    s3.put_object(Bucket=bucket, Key="runs/first/config.json", Body=b"{}")
    with contextlib.suppress(ClientError):
        account.delete_stack()
    assert s3.get_object(Bucket=bucket, Key="runs/first/config.json")["Body"].read() == b"{}"
    s3.delete_object(Bucket=bucket, Key="runs/first/config.json")
    s3.delete_bucket(Bucket=bucket)


def test_the_stack_outputs_the_metadata_block_of_ray_cluster_yaml(
    outputs: dict[str, str], account: Account, tmp_path: Path
) -> None:
    ours, made = yaml.safe_load(FILE.read_text()), yaml.safe_load(our_file(tmp_path, outputs["Metadata"]).read_text())
    assert list(made["metadata"]) == list(ours["metadata"])
    assert not [value for value in made["metadata"].values() if "000000" in value]
    assert made["metadata"]["machine_image"] == account.machine_image
    assert made["provider"]["region"] == "us-west-2"
    assert made["docker"]["image"] == f"{outputs['Registry']}:0.1.0-cpu"
