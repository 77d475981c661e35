"""ray_cluster.yaml: read, brought up by `ray up`, and scaled by the real autoscaler, against an account of moto's."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_account import FILE, Account, a_home, an_account, our_file

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")  # moto says so of bucket policies

RAY = str(Path(sys.executable).with_name("ray"))
SSH = """#!/bin/bash
# Stands in for ssh: notes what it was to run, and answers as a node would whose container starts when told to.
for word in "$@"; do case "$word" in ubuntu@*) up="$STAND_IN/up-$word";; esac; done
printf '%s' "$*" | tr '\\n' ' ' >> "$STAND_IN/log"; echo >> "$STAND_IN/log"
case "$*" in
  *"docker run"*) touch "$up";;
  *"json .Config.Env"*) echo '["HOME=/home/ray"]';;
  *"json .Mounts"*) echo '[]';;
  *".State.Running"*) [ -e "$up" ] && echo true || echo false;;
  *"printenv HOME"*) echo /home/ray;;
  *"/proc/meminfo"*) echo "MemAvailable:   30000000 kB";;
  *"command -v docker"*) echo /usr/bin/docker;;
  *".Runtimes"*) echo "map[runc]";;
esac
exit 0
"""
RSYNC = """#!/bin/bash
# Stands in for rsync: keeps what it was to carry, under the name that it was to get.
to="${@: -1}"; from="${@: -2:1}"
printf 'rsync %s %s\\n' "$from" "$to" >> "$STAND_IN/log"
[ -f "$from" ] && cp "$from" "$STAND_IN/$(basename "$to")"
exit 0
"""
DEMAND = """
import sys
from cluster import runtime
from cluster.pool import RayPool

class Stage:
    threads = 0
    def __init__(self, device=""):
        self.device = device
    def build(self):
        return lambda unit: unit
    def run(self):
        yield "done"

runtime.connect(sys.argv[1])
pool, units = RayPool(), int(sys.argv[2])
if units:  # as collect, encode, evolve and score do
    with pool.crew(Stage()) as crew:
        list(crew.map(range(units)))
else:  # as the trainings of V and M do
    list(pool.stream(Stage(pool.device("auto"))))
"""


@dataclass
class Brought:
    """A cluster brought up: what its nodes were told."""

    account: Account
    folder: Path
    environment: dict[str, str]
    output: str

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    def told(self, *words: str) -> list[str]:
        return [line for line in self.log if all(word in line for word in words)]


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brought]:
    """`ray up`, as a user types it, with ssh and rsync that reach nobody."""
    folder = tmp_path_factory.mktemp("up")
    home = a_home(folder / "home")
    programs = folder / "bin"
    programs.mkdir()
    for name, content in (("ssh", SSH), ("rsync", RSYNC)):
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    with an_account() as account:
        path = our_file(folder, account.make_stack()["Metadata"])
        environment = os.environ | {
            "HOME": str(home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "STAND_IN": str(folder),
            "RAY_AUTH_MODE": "disabled",
            "PYTHONPATH": str(FILE.parent),  # where the project is not installed
        }
        done = subprocess.run(
            [RAY, "up", "--yes", "--no-config-cache", str(path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield Brought(account, folder, environment, done.stdout)


def test_node_types_are_what_their_work_needs(file: dict[str, Any]) -> None:
    kinds = file["available_node_types"]
    assert {name: kind["labels"]["wm.io/role"] for name, kind in kinds.items()} == {
        "head": "head",
        "rollout": "rollout",
        "train-gpu": "train",
    }
    assert kinds["head"]["resources"]["CPU"] == 0
    assert {name for name, kind in kinds.items() if "InstanceMarketOptions" in kind["node_config"]} == {"rollout"}
    assert all(kind.get("min_workers", 0) == 0 for kind in kinds.values())
    assert kinds["train-gpu"]["idle_timeout_s"] <= 300
    assert file["max_workers"] >= kinds["rollout"]["max_workers"] + kinds["train-gpu"]["max_workers"]
    types = [kinds["rollout"]["node_config"]["InstanceType"], *file["provider"]["instead"]["c6i.4xlarge"]]
    assert len(types) == len(set(types)) >= 4
    assert {one[1:3] for one in types} == {"6i"}  # one processor family: the same bits
    assert {one.partition(".")[2] for one in types} == {"4xlarge"}  # as many CPUs as are declared


def test_every_node_is_closed_and_authenticated(file: dict[str, Any]) -> None:
    for kind in file["available_node_types"].values():
        node = kind["node_config"]
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert node["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert node["SecurityGroupIds"] == [file["metadata"]["security_group"]]
        assert node["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
    assert "-e RAY_AUTH_MODE=token" in file["docker"]["run_options"]
    assert "~/.ray/auth_token" in file["file_mounts"]
    assert file["provider"]["cache_stopped_nodes"] is False
    assert "-e AUTOSCALER_MAX_NUM_FAILURES=inf" in file["docker"]["head_run_options"]


def test_lines_that_are_yours_stand_at_the_top_and_nowhere_else() -> None:
    top, rest = FILE.read_text().split("# ---- yours: end ----")
    for word in ("us-west-2", "000000000000", "ami-", "sg-", ".pem", "dkr.ecr", "s3://"):
        assert word in top
        assert word not in rest


def test_ray_up_starts_the_head_we_asked_for(brought: Brought) -> None:
    account, ec2 = brought.account, brought.account.client("ec2")
    [head] = account.instances()
    assert head["InstanceType"] == "m6i.2xlarge"
    assert "InstanceLifecycle" not in head
    assert head["IamInstanceProfile"]["Arn"].endswith(":instance-profile/world-models-head")
    assert head["ImageId"] == account.machine_image
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert [group["GroupName"] for group in head["SecurityGroups"]] == ["world-models"]
    tags = {tag["Key"]: tag["Value"] for tag in head["Tags"]}
    assert (tags["ray-cluster-name"], tags["ray-user-node-type"]) == ("world-models", "head")
    [disk] = ec2.describe_volumes(VolumeIds=[head["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]])["Volumes"]
    assert (disk["Size"], disk["VolumeType"], disk["Encrypted"]) == (200, "gp3", True)
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert not [group for group in groups if group["GroupName"].startswith("ray-autoscaler")]  # Ray's own are open


def test_ray_up_makes_no_roles_of_its_own(brought: Brought) -> None:
    profiles = brought.account.client("iam").list_instance_profiles()["InstanceProfiles"]
    assert {one["InstanceProfileName"] for one in profiles} == {"world-models-head", "world-models-worker"}


def test_ray_up_logs_in_pulls_and_runs_our_image_with_the_token(brought: Brought) -> None:
    config = yaml.safe_load((brought.folder / "ray_cluster.yaml").read_text())
    assert brought.told("docker login", config["docker"]["image"].partition("/")[0])
    assert brought.told("docker pull", config["docker"]["image"])
    [run] = brought.told("docker run")
    assert "/.ray/auth_token:/home/ray/.ray/auth_token" in run
    for option in ("-e RAY_AUTH_MODE=token", "-e AWS_REGION=us-west-2", "-e AUTOSCALER_MAX_NUM_FAILURES=inf"):
        assert option in run
    assert brought.told("rsync", ".ray/auth_token")
    assert (brought.folder / "auth_token").read_text() == "a-token"


def test_ray_up_starts_ray_on_loopback_without_cpus_for_rollouts(brought: Brought) -> None:
    [start] = brought.told("ray start --head")
    assert "--dashboard-host=127.0.0.1" in start
    assert "RAY_enable_autoscaler_v2=1" in start
    assert '"CPU":0' in start.replace(" ", "").replace("\\", "")
    assert "wm.io/role" in start


@pytest.fixture
def autoscaler(brought: Brought, tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """A head with the very config that `ray up` has sent to it; starts stages of so many units, or (0) a training."""
    port, short = free_port(), Path(f"/tmp/wm-{os.getpid()}")
    config = brought.folder / "ray_bootstrap_config.yaml"
    for name in ("ray_bootstrap_key.pem", "ray_bootstrap_config.yaml"):
        shutil.copy(brought.folder / name, brought.environment["HOME"])
    [head] = brought.account.instances()
    environment = brought.environment | {
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": head["InstanceId"],
        "RAY_NODE_TYPE_NAME": "head",
        "RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S": "5",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_MAX_CONCURRENT_LAUNCHES": "100",
        "RAY_OVERRIDE_RESOURCES": '{"CPU": 0}',
    }
    words = ["start", "--head", "--block", f"--port={port}", "--dashboard-host=127.0.0.1", "--include-dashboard=false"]
    words += [f"--autoscaling-config={config}", f"--temp-dir={short}", "--object-store-memory=100000000"]
    words += ["--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    log = (tmp_path / "head.log").open("wb")
    started = [subprocess.Popen([RAY, *words], env=environment, stdout=log, stderr=log, start_new_session=True)]

    def demand(units: int) -> subprocess.Popen[bytes]:
        driver = [sys.executable, "-c", DEMAND, f"127.0.0.1:{port}", str(units)]
        started.append(subprocess.Popen(driver, env=environment, stdout=log, stderr=log, start_new_session=True))
        return started[-1]

    until(lambda: b"Ray runtime started" in (tmp_path / "head.log").read_bytes())
    yield demand
    for process in reversed(started):
        process.terminate()
    for process in started:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    for name in ("monitor.log", "monitor.err"):  # where Ray says why there are no nodes
        shutil.copy(short / "session_latest" / "logs" / name, tmp_path)
    shutil.rmtree(short, ignore_errors=True)


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(ready: Callable[[], Any]) -> None:
    end = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.5)


@pytest.mark.slow
def test_demand_starts_the_right_nodes_and_its_end_ends_them(
    brought: Brought, autoscaler: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    def workers() -> list[dict[str, Any]]:
        return [one for one in brought.account.instances() if one["InstanceType"] != "m6i.2xlarge"]

    brought.account.asked.clear()
    drivers = [autoscaler(40), autoscaler(0)]
    until(lambda: len(workers()) >= 4)
    time.sleep(5)
    assert Counter(one["InstanceType"] for one in workers()) == {"c6i.4xlarge": 3, "g5.2xlarge": 1}
    for one in workers():
        assert (one.get("InstanceLifecycle") == "spot") == (one["InstanceType"] == "c6i.4xlarge")
        assert one["MetadataOptions"]["HttpTokens"] == "required"
        assert [group["GroupName"] for group in one["SecurityGroups"]] == ["world-models"]
    given = [one for one in workers() if "IamInstanceProfile" in one]  # moto gives it to the first of a batch only
    assert {one["InstanceType"] for one in given} == {"c6i.4xlarge", "g5.2xlarge"}
    assert {one["IamInstanceProfile"]["Arn"].rpartition("/")[2] for one in given} == {"world-models-worker"}
    until(lambda: len(brought.told("cluster.spot --address=")) >= 4)
    config = yaml.safe_load((brought.folder / "ray_cluster.yaml").read_text())
    assert len(brought.told("docker pull", config["metadata"]["image_gpu"])) == 1
    assert len(brought.told("docker run", "RAY_AUTH_MODE=token", "auth_token:/home/ray/.ray/auth_token")) == 5
    for driver in drivers:
        driver.kill()
    until(lambda: not workers())
    # What the head's profile allows it: the policy is tested in test_aws_prerequisites.py.
    allowed = {"DescribeInstances", "DescribeInstanceTypes", "DescribeImages"}
    assert set(brought.account.asked) <= allowed | {"RunInstances", "CreateTags", "TerminateInstances"}
    assert {"RunInstances", "CreateTags", "TerminateInstances"} <= set(brought.account.asked)


@pytest.mark.slow
def test_where_ec2_has_run_out_of_a_type_the_next_one_is_started(
    brought: Brought,
    autoscaler: Callable[[int], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from moto.ec2.exceptions import EC2ClientError
    from moto.ec2.models.instances import InstanceBackend

    run, gone = InstanceBackend.run_instances, ("c6i.4xlarge", "m6i.4xlarge")

    def short(self: InstanceBackend, *words: Any, **more: Any) -> Any:
        if more["instance_type"] in gone:
            raise EC2ClientError("InsufficientInstanceCapacity", "there is none")
        return run(self, *words, **more)

    monkeypatch.setattr(InstanceBackend, "run_instances", short)
    autoscaler(40)
    until(lambda: len(brought.account.instances()) >= 4)
    workers = [one for one in brought.account.instances() if one["InstanceType"] != "m6i.2xlarge"]
    assert Counter(one["InstanceType"] for one in workers) == {"c6id.4xlarge": 3}
    assert {one["InstanceLifecycle"] for one in workers} == {"spot"}
    brought.account.client("ec2").terminate_instances(InstanceIds=[one["InstanceId"] for one in workers])
