"""Preflight with an account that has all prerequisites, and with accounts that lack one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_account import FILE, REGION, STACK, Account, a_home, an_account, our_file

from cluster.aws.account import Account as Asked
from jobs.preflight import main

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")  # from moto, for bucket policies

QUOTAS = {"L-1216C47A": 64, "L-34B43A08": 640, "L-DB2E81BA": 8}
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    """An account with the stack and the images. moto has no EC2 quotas, so they are patched."""
    from moto.servicequotas.models import ServiceQuotasBackend

    with an_account() as account, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ServiceQuotasBackend, "get_service_quota", lambda self, service_code, quota_code: quota(quota_code)
        )
        account.metadata = account.make_stack()["Metadata"]
        account.push_images()
        yield account


def quota(code: str) -> dict[str, Any]:
    return {"ServiceCode": "ec2", "QuotaCode": code, "Value": float(QUOTAS[code])}


@pytest.fixture(scope="module")
def session(account: Account) -> Any:
    import boto3

    return boto3.Session(region_name=REGION)


@pytest.fixture
def ask(
    account: Account, session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Exit code, summary and stderr of the job with an edited cluster config."""
    home = a_home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(FILE.parent))  # if the project is not installed
    monkeypatch.setattr(Asked, "session", session)  # a new session takes half a second

    def run(edit: Edit | None = None) -> tuple[int, dict[str, Any], str]:
        path = our_file(tmp_path, account.metadata)
        if edit:
            config = yaml.safe_load(path.read_text())
            edit(config)
            path.write_text(yaml.safe_dump(config))
        capfd.readouterr()
        code = main(str(path))
        out, err = capfd.readouterr()
        return code, json.loads(out.splitlines()[-1]), err

    return run


def nodes(config: dict[str, Any], **values: Any) -> None:
    """Set values in every node_config."""
    for kind in config["available_node_types"].values():
        kind["node_config"].update(values)


def test_an_account_with_all_prerequisites(ask: Callable[..., Any]) -> None:
    code, summary, err = ask()
    assert (code, summary["ready"], summary["failed"]) == (0, True, {}), err
    assert "640 of 4800 vCPUs" in summary["ok"]["quotas"]
    assert len(summary["ok"]) == len(err.splitlines())


def test_the_gpu_driver_of_the_machine_image(account: Account, ask: Callable[..., Any]) -> None:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.ec2.models import ec2_backends

    assert "driver not stated: it must be 580 or later" in ask()[1]["ok"]["machine_image"]
    image = ec2_backends[DEFAULT_ACCOUNT_ID][REGION].amis[account.machine_image]
    image.description = "Supported EC2 instances: G5. NVIDIA driver version: 570.172.08"
    code, summary, _ = ask()
    assert code == 2
    assert "NVIDIA driver 570, torch needs 580 or later for CUDA 13.0" in summary["failed"]["machine_image"]
    without_gpus = ask(lambda config: config["available_node_types"]["train-gpu"].update(max_workers=0))[1]
    assert "driver" not in without_gpus["ok"]["machine_image"]
    image.description = "NVIDIA driver version: 580.95.05"
    assert ask()[1]["ok"]["machine_image"].endswith("(driver 580)")
    image.description = ""


# Groups of failures that are tested together, since all checks run: check -> (edit, word in the message)
FAILURES: list[dict[str, tuple[Edit, str]]] = [
    {"file": (lambda c: c.update(max_wokers=3), "max_wokers")},
    {"file": (lambda c: c["available_node_types"]["head"].update(resources="many"), "many")},
    {
        "filled": (lambda c: c["provider"].update(region="us-west-9"), "region_option"),
        "region": (lambda c: None, "us-west-2"),
    },
    {
        "filled": (lambda c: c["docker"].update(run_options=["-e RAY_AUTH_MODE=token"]), "region_option"),
        "node_config": (lambda c: nodes(c, InstanceTyp="m6i.large"), "InstanceTyp"),
        "token": (lambda c: c.update(file_mounts={}), "file_mounts"),
        "key_pair": (lambda c: nodes(c, KeyName="lost"), "create-key-pair"),
        "security_group": (lambda c: nodes(c, SecurityGroupIds=["sg-0123456789abcdef0"]), "prerequisites.yaml"),
        "profiles": (lambda c: nodes(c, IamInstanceProfile={"Name": "nobody"}), "prerequisites.yaml"),
        "machine_image": (lambda c: nodes(c, ImageId="ami-0123456789abcdef0"), "machine_image"),
        "instance_types": (lambda c: nodes(c, InstanceType="c99.large"), "c99.large"),
        "quotas": (lambda c: None, "instance_types"),
        "images": (lambda c: c["docker"].update(image=c["docker"]["image"] + "x"), "step 4"),
        "bucket": (lambda c: c["metadata"].update(bucket="s3://nobody-has-this"), "prerequisites.yaml"),
    },
    {
        "filled": (
            lambda c: c["docker"].update(head_image="000000000000.dkr.ecr.us-west-2.amazonaws.com/a:b"),
            "stack",
        ),
        "node_config": (lambda c: nodes(c, MetadataOptions={}), "HttpTokens"),
        "token": (lambda c: c["docker"].update(run_options=["-e AWS_REGION=us-west-2"]), "RAY_AUTH_MODE"),
        "profiles": (lambda c: nodes(c, IamInstanceProfile={"Name": "world-models-head"}), "their own"),
        "machine_image": (lambda c: nodes(c, BlockDeviceMappings=[]), "BlockDeviceMappings"),
        "images": (lambda c: None, "000000000000"),
        "bucket": (lambda c: c["metadata"].pop("bucket"), "metadata.bucket"),
    },
    {
        "node_config": (lambda c: c["available_node_types"]["head"]["node_config"].pop("SecurityGroupIds"), "world"),
        "images": (
            lambda c: c["docker"].update(image=c["docker"]["image"].replace("us-west-2", "eu-west-1")),
            "eu-west-1",
        ),
    },
]


@pytest.mark.parametrize("group", FAILURES, ids=lambda group: "-".join(group))
def test_each_failure_is_one_line_with_its_fix(ask: Callable[..., Any], group: dict[str, tuple[Edit, str]]) -> None:
    code, summary, err = ask(lambda config: [edit(config) for edit, _ in group.values()])
    assert (code, summary["ready"]) == (2, False)
    assert set(summary["failed"]) == set(group)
    assert [check for check, (_, word) in group.items() if word not in summary["failed"][check]] == []
    lines = [line for line in err.splitlines() if line.startswith("FAIL")]
    assert lines == [f"FAIL  {check}: {message}" for check, message in summary["failed"].items()]


def test_the_unedited_cluster_config_is_not_ready(
    account: Account, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FILE.parent))
    assert main(str(FILE)) == 2
    failed = json.loads(capfd.readouterr().out.splitlines()[-1])["failed"]
    assert "ami-00000000000000000" in failed["filled"]


@pytest.mark.parametrize(
    ("name", "check", "spoil", "word"),
    [
        (".ssh/world-models.pem", "key_file", lambda path: path.unlink(), "create-key-pair"),
        (".ssh/world-models.pem", "key_file", lambda path: path.chmod(0o644), "chmod 600"),
        (".ssh/world-models.pem", "key_file", lambda path: path.write_text("ssh-rsa AAAA"), ".pem"),
        (".ray/auth_token", "token", lambda path: path.unlink(), "ray get-auth-token --generate"),
        (".ray/auth_token", "token", lambda path: path.chmod(0o640), "chmod 600"),
        (".ray/auth_token", "token", lambda path: path.write_text(""), "generate"),
    ],
)
def test_secrets_must_exist_and_be_private(
    ask: Callable[..., Any], tmp_path: Path, name: str, check: str, spoil: Callable[[Path], None], word: str
) -> None:
    spoil(tmp_path / "home" / name)
    code, summary, _ = ask()
    assert (code, list(summary["failed"])) == (2, [check])
    assert word in summary["failed"][check]


def test_a_quota_below_one_node_fails_and_names_the_request(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(QUOTAS, "L-DB2E81BA", 0)
    code, summary, _ = ask()
    assert (code, list(summary["failed"])) == (2, ["quotas"])
    assert "--quota-code L-DB2E81BA" in summary["failed"]["quotas"]

    code, summary, _ = ask(lambda config: config["available_node_types"]["train-gpu"].update(max_workers=0))
    assert code == 0, summary


def test_a_group_open_to_the_world_fails(account: Account, ask: Callable[..., Any]) -> None:
    group, ec2 = yaml.safe_load(account.metadata)["metadata"]["security_group"], account.client("ec2")
    rule = {"IpProtocol": "tcp", "FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    code, summary, _ = ask()
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    assert (code, list(summary["failed"])) == (2, ["security_group"])


def test_a_bucket_that_overwrites_fails(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    plain = boto3.Session.client

    def forgetful(session: boto3.Session, service: str, **options: Any) -> Any:
        client = plain(session, service, **options)
        if service == "s3":
            put = client.put_object
            client.put_object = lambda IfNoneMatch="", **rest: put(**rest)
        return client

    monkeypatch.setattr(boto3.Session, "client", forgetful)
    code, summary, _ = ask()
    assert (code, list(summary["failed"])) == (2, ["bucket"])
    assert "If-None-Match" in summary["failed"]["bucket"]


def test_without_credentials_aws_is_not_called_again(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(Asked, "session", boto3.Session(region_name=REGION))
    code, summary, _ = ask()
    assert (code, list(summary["failed"])) == (2, ["credentials"])
    assert "aws configure" in summary["failed"]["credentials"]
    assert "bucket" not in summary["ok"]


def test_nothing_is_left_in_the_bucket(account: Account, ask: Callable[..., Any]) -> None:
    ask()
    bucket = f"{STACK}-123456789012-us-west-2"
    assert account.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "can't read"),
        ("a: [", "is not valid YAML"),
        ("a: 1", "is not a Ray cluster config"),
        ("provider: {type: gcp}", "AWS"),
    ],
)
def test_other_files_are_user_errors(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: str | None, word: str
) -> None:
    path = tmp_path / "other.yaml"
    if content is not None:
        path.write_text(content)
    assert main(str(path)) == 2
    assert word in capfd.readouterr().err
