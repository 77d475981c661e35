"""ray_cluster.yaml with `ray up` and the real autoscaler, against an AWS account simulated by moto."""

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

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")  # moto warns about bucket policies

RAY = str(Path(sys.executable).with_name("ray"))
SSH = """#!/bin/bash
# Fake ssh: logs the command and answers like a node whose container starts on `docker run`.
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
# Fake rsync: logs the command and keeps the copied file under its target name.
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
if units:  # like collect, encode, evolve and score
    with pool.crew(Stage()) as crew:
        list(crew.map(range(units)))
else:  # like the training of V and M
    list(pool.stream(Stage(pool.device("cuda"))))
"""


@dataclass
class StartedCluster:
    """A cluster started by `ray up`, with the log of all commands that were sent to its nodes."""

    account: Account
    folder: Path
    environment: dict[str, str]
    output: str

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    def commands(self, *words: str) -> list[str]:
        return [line for line in self.log if all(word in line for word in words)]


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


@pytest.fixture(scope="module")
def started_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedCluster]:
    """Runs `ray up` with fake ssh and rsync."""
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
            "PYTHONPATH": str(FILE.parent),  # in case the project is not installed
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
        yield StartedCluster(account, folder, environment, done.stdout)


def test_node_types_match_their_roles(file: dict[str, Any]) -> None:
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
    types = [kinds["rollout"]["node_config"]["InstanceType"], *file["provider"]["instead"]["c7i.4xlarge"]]
    assert len(types) == len(set(types)) >= 4
    assert {one[1:3] for one in types} == {"7i"}  # one processor family, for bit-identical results
    assert {one.partition(".")[2] for one in types} == {"4xlarge"}  # the declared number of CPUs


def test_every_node_is_secured(file: dict[str, Any]) -> None:
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


def test_account_specific_values_are_only_in_the_block_at_the_top() -> None:
    top, rest = FILE.read_text().split("# ---- yours: end ----")
    for word in ("us-west-2", "000000000000", "ami-", "sg-", ".pem", "dkr.ecr", "s3://"):
        assert word in top
        assert word not in rest


def test_ray_up_starts_the_configured_head(started_cluster: StartedCluster) -> None:
    account, ec2 = started_cluster.account, started_cluster.account.client("ec2")
    [head] = account.instances()
    assert head["InstanceType"] == "m7i.2xlarge"
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
    # Groups that Ray creates are open to the world.
    assert not [group for group in groups if group["GroupName"].startswith("ray-autoscaler")]


def test_ray_up_creates_no_roles(started_cluster: StartedCluster) -> None:
    profiles = started_cluster.account.client("iam").list_instance_profiles()["InstanceProfiles"]
    assert {one["InstanceProfileName"] for one in profiles} == {"world-models-head", "world-models-worker"}


def test_ray_up_pulls_and_runs_the_image_with_the_token(started_cluster: StartedCluster) -> None:
    config = yaml.safe_load((started_cluster.folder / "ray_cluster.yaml").read_text())
    assert started_cluster.commands("docker login", config["docker"]["image"].partition("/")[0])
    assert started_cluster.commands("docker pull", config["docker"]["image"])
    [run] = started_cluster.commands("docker run")
    assert "/.ray/auth_token:/home/ray/.ray/auth_token" in run
    for option in ("-e RAY_AUTH_MODE=token", "-e AWS_REGION=us-west-2", "-e AUTOSCALER_MAX_NUM_FAILURES=inf"):
        assert option in run
    assert started_cluster.commands("rsync", ".ray/auth_token")
    assert (started_cluster.folder / "auth_token").read_text() == "a-token"


def test_ray_up_starts_the_head_on_loopback_without_cpus(started_cluster: StartedCluster) -> None:
    [start] = started_cluster.commands("ray start --head")
    assert "--dashboard-host=127.0.0.1" in start
    assert "RAY_enable_autoscaler_v2=1" in start
    assert '"CPU":0' in start.replace(" ", "").replace("\\", "")
    assert "wm.io/role" in start


@pytest.fixture
def autoscaler(started_cluster: StartedCluster, tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Starts a head with the config that `ray up` has sent; call it to run a stage with n units, or (0) a training."""
    port, short = free_port(), Path(f"/tmp/wm-{os.getpid()}")
    config = started_cluster.folder / "ray_bootstrap_config.yaml"
    for name in ("ray_bootstrap_key.pem", "ray_bootstrap_config.yaml"):
        shutil.copy(started_cluster.folder / name, started_cluster.environment["HOME"])
    [head] = started_cluster.account.instances()
    environment = started_cluster.environment | {
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
    for name in ("monitor.log", "monitor.err"):  # the autoscaler logs launch failures there
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
def test_the_autoscaler_starts_the_needed_nodes_and_terminates_them(
    started_cluster: StartedCluster, autoscaler: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    def workers() -> list[dict[str, Any]]:
        return [one for one in started_cluster.account.instances() if one["InstanceType"] != "m7i.2xlarge"]

    started_cluster.account.asked.clear()
    drivers = [autoscaler(40), autoscaler(0)]
    until(lambda: len(workers()) >= 4)
    time.sleep(5)
    assert Counter(one["InstanceType"] for one in workers()) == {"c7i.4xlarge": 3, "g5.2xlarge": 1}
    for one in workers():
        assert (one.get("InstanceLifecycle") == "spot") == (one["InstanceType"] == "c7i.4xlarge")
        assert one["MetadataOptions"]["HttpTokens"] == "required"
        assert [group["GroupName"] for group in one["SecurityGroups"]] == ["world-models"]
    # moto sets it only for the first instance of a batch.
    given = [one for one in workers() if "IamInstanceProfile" in one]
    assert {one["InstanceType"] for one in given} == {"c7i.4xlarge", "g5.2xlarge"}
    assert {one["IamInstanceProfile"]["Arn"].rpartition("/")[2] for one in given} == {"world-models-worker"}
    until(lambda: len(started_cluster.commands("cluster.spot --address=")) >= 4)
    config = yaml.safe_load((started_cluster.folder / "ray_cluster.yaml").read_text())
    assert len(started_cluster.commands("docker pull", config["metadata"]["image_gpu"])) == 1
    assert (
        len(started_cluster.commands("docker run", "RAY_AUTH_MODE=token", "auth_token:/home/ray/.ray/auth_token")) == 5
    )
    for driver in drivers:
        driver.kill()
    until(lambda: not workers())
    # The actions that the head's policy allows; test_aws_prerequisites.py tests the policy.
    allowed = {"DescribeInstances", "DescribeInstanceTypes", "DescribeImages"}
    assert set(started_cluster.account.asked) <= allowed | {"RunInstances", "CreateTags", "TerminateInstances"}
    assert {"RunInstances", "CreateTags", "TerminateInstances"} <= set(started_cluster.account.asked)


@pytest.mark.slow
def test_the_next_instance_type_is_started_if_there_is_no_capacity(
    started_cluster: StartedCluster,
    autoscaler: Callable[[int], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from moto.ec2.exceptions import EC2ClientError
    from moto.ec2.models.instances import InstanceBackend

    run, gone = InstanceBackend.run_instances, ("c7i.4xlarge", "m7i.4xlarge")

    def short(self: InstanceBackend, *words: Any, **more: Any) -> Any:
        if more["instance_type"] in gone:
            raise EC2ClientError("InsufficientInstanceCapacity", "no capacity")
        return run(self, *words, **more)

    monkeypatch.setattr(InstanceBackend, "run_instances", short)
    autoscaler(40)
    until(lambda: len(started_cluster.account.instances()) >= 4)
    workers = [one for one in started_cluster.account.instances() if one["InstanceType"] != "m7i.2xlarge"]
    assert Counter(one["InstanceType"] for one in workers) == {"r7i.4xlarge": 3}
    assert {one["InstanceLifecycle"] for one in workers} == {"spot"}
    started_cluster.account.client("ec2").terminate_instances(InstanceIds=[one["InstanceId"] for one in workers])
