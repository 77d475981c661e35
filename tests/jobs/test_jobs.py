"""All jobs, as processes: exit codes, stdout and stderr, one-line errors, help."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import Job, type_in

from jobs.__main__ import jobs
from jobs.command_line import parse
from jobs.display import brief, describe
from wm.config.presets import PRESETS
from wm.errors import UserError
from wm.formatting import format_duration
from wm.pool import Progress
from wm.runs.run import Run, open_existing

STAGES = ["collect", "vision", "latents", "memory", "evolve", "score"]


def test_the_pipeline_ends_with_a_summary_on_stdout(tiny: Run) -> None:
    lines = Path(tiny.uri, "stdout").read_text().splitlines()
    assert len(lines) == 1
    summary = json.loads(lines[-1])
    assert (summary["job"], summary["run"]) == ("pipeline", tiny.uri)
    assert list(summary["stages"]) == STAGES
    assert summary["seconds"] > 0
    for stage in summary["stages"].values():
        assert len(stage["digest"]) == 64
    score = summary["stages"]["score"]
    assert {"score", "std", "se", "episodes", "first_seed"} <= score.keys()
    assert len(summary["stages"]["evolve"]["theta_sha256"]) == 64


def test_progress_goes_to_stderr(tiny: Run) -> None:
    text = Path(tiny.uri, "stderr").read_text()
    places = [text.index(f"stage {number} of 6 {stage} ") for number, stage in enumerate(STAGES, 1)]
    assert places == sorted(places)
    assert "2/2 shards" in text
    assert "3/3 generations" in text
    assert "left" in text


def test_a_complete_pipeline_does_nothing_when_run_again(copy: Callable[..., Path], job: Callable[..., Job]) -> None:
    """On a copy, since the lease that the job holds meanwhile would be seen by tests in other processes."""
    run = open_existing(str(copy()))
    before = run.storage.sizes()
    again = job("pipeline", "--run", run.uri, "--local")
    assert again.wait() == 0, again.stderr
    first = json.loads(Path(run.uri, "stdout").read_text())
    assert again.summary["stages"] == first["stages"]
    assert run.storage.sizes() == before


def test_the_status_of_a_complete_run(tiny: Run, job: Callable[..., Job]) -> None:
    status = job("status", "--run", tiny.uri)
    assert status.wait() == 0, status.stderr
    assert status.summary["next"] is None
    assert all(stage["complete"] for stage in status.summary["stages"].values())


def test_a_user_error_in_a_shell_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    uri = tmp_path / "run"
    unknown = type_in("jobs.collect", "huge", "--run", uri)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == f"no preset huge: use one of {', '.join(PRESETS)}\n"
    assert not uri.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pipeline --run RUN", "no run in RUN: start one with `python -m jobs.pipeline PRESET --run RUN`; presets:"),
        (
            "collect tiny --run RUN --episodes 5",
            "--episodes must be a multiple of --collect.unit-episodes 2 (one shard), got 5: use 6",
        ),
        ("collect tiny --run RUN --seed 0", "--seed must be in [1, 2147483647], got 0"),
        ("collect tiny --run RUN --policy clever", "--policy must be mixture or"),
        ("collect tiny --run RUN --episodes many", "--episodes must be an integer, got many"),
        ("collect tiny --run RUN --collect.episodes many", "--collect.episodes must be an integer, got many"),
        ("collect tiny --run RUN --epsodes 4", "(perhaps you meant --episodes); --help-all lists all flags"),
        ("evolve tiny --run RUN --in dreem", "invalid choice 'dreem' for argument '--in'. Expected one of"),
        ("iterate tiny --run RUN --rounds many", "--rounds must be an integer, got many"),
        ("collect tiny --run RUN --colour red", "Unrecognized options: --colour, red; --help-all lists all flags"),
        ("collect tiny --run RUN --collect.policcy held", "(perhaps you meant --collect.policy); --help-all lists all"),
        ("collect tiny", "Missing: --run URI The run: a folder or s3://bucket/prefix."),
        ("collect tiny --run RUN --base NOWHERE", "no run in NOWHERE"),
        ("collect tiny --run http://host/run", "has an unknown scheme: use a folder or s3://bucket/prefix"),
        ("iterate tiny --run RUN --rounds.evolve.generation 5", "the config has no field evolve.generation"),
        ("iterate tiny --run RUN --rounds.evolve.cut much", "--evolve.cut must be a number, got much"),
        ("collect tiny --run FILE", "FILE is a file: use a folder or a new name"),
        ("collect tiny --run /proc/runs", "can't write /proc/runs/config.json"),
        ("score --run TINY --seed 7", "this run was frozen with --seed 0, not 7: remove the flag"),
        ("vision --run TINY --steps 5", "--steps must be 6 or more, since this run has come so far, got 5"),
        ("collect demo --run TINY", "TINY was started with the preset tiny, not demo"),
        (
            "memory tiny --run RUN --local",
            "no completed vision stage in RUN: run `python -m jobs.vision --run RUN",
        ),
    ],
)
def test_user_errors_are_one_line_with_a_fix(
    words: str, message: str, tiny: Run, tmp_path: Path, job: Callable[..., Job]
) -> None:
    (tmp_path / "file").write_text("")
    names = {"RUN": tmp_path / "run", "NOWHERE": tmp_path / "nowhere", "FILE": tmp_path / "file", "TINY": tiny.uri}
    for name, path in names.items():
        words, message = words.replace(name, str(path)), message.replace(name, str(path))
    before = tiny.storage.sizes()
    name, *rest = words.split()
    failed = job(name, *rest)
    assert failed.wait() == 2
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""
    assert tiny.storage.sizes() == before
    assert name == "memory" or not (tmp_path / "run").exists()  # nothing was written


def test_an_unknown_bucket_is_a_user_error(s3: Callable[[str], str], job: Callable[..., Job]) -> None:
    failed = job("collect", "tiny", "--run", "s3://nobody-made-this/run")
    assert failed.wait() == 2
    assert failed.stderr == (
        "no bucket nobody-made-this: create it (`aws s3 mb s3://nobody-made-this`) or use another\n"
    )


def test_a_unit_that_keeps_failing_is_exit_code_1_and_completed_work_is_kept(
    tmp_path: Path, job: Callable[..., Job]
) -> None:
    uri = tmp_path / "run"
    obstacle = uri / "collect" / "shards" / "000001.parquet"
    obstacle.mkdir(parents=True)  # a folder with the name of the second shard
    failed = job("collect", "tiny", "--run", uri, "--local", "--workers.retries", 2)
    assert failed.wait() == 1
    assert "failed: 1 failed 2 times" in failed.stderr
    assert "IsADirectoryError" in failed.stderr
    assert failed.stderr.splitlines()[-1] == "Completed work is kept; run the same command to resume."
    assert failed.stdout == ""
    assert (uri / "collect" / "000000.json").exists()
    obstacle.rmdir()
    again = job("collect", "--run", uri, "--local")
    assert again.wait() == 0, again.stderr
    assert "1 of 2 shards already exist" in again.stderr


def test_one_of_two_jobs_that_start_the_same_run_fails(tmp_path: Path, job: Callable[..., Job]) -> None:
    uri = tmp_path / "run"
    both = [job("collect", "tiny", "--run", uri, "--seed", seed, "--local") for seed in (3, 4)]
    codes = {seed: one.wait() for seed, one in zip((3, 4), both, strict=True)}
    assert sorted(codes.values()) == [0, 2]
    winner = open_existing(str(uri)).config.seed
    assert codes[winner] == 0
    loser = both[0] if winner == 4 else both[1]
    assert f"this run was frozen with --seed {winner}, not {7 - winner}" in loser.stderr


def test_help_shows_the_flags_of_the_job_and_help_all_every_field(job: Callable[..., Job]) -> None:
    asked = (("evolve", "--help"), ("pipeline", "-h"), ("collect", "--help-all"), ("score", "--help"))
    shown = {words: job(*words) for words in asked}
    text = {}
    for words, one in shown.items():
        assert one.wait() == 0, one.stderr
        text[words[0]] = " ".join(one.stdout.replace("│", " ").split())
    for part in (
        "car-racing-small",
        "--run",
        "--population INT Candidates per generation. (default: 32)",
        "--help-all",
    ):
        assert part in text["evolve"]
    assert "--vision" not in text["evolve"]
    own = [
        text["evolve"].index(flag) for flag in ("--in {real,dream}", "--generations INT", "--run URI The", "--local")
    ]
    assert own == sorted(own)  # what the job itself takes comes first
    own = [text["score"].index(f" {flag} ") for flag in ("--agent FILE", "--episodes INT", "--run URI The")]
    assert own == sorted(own)
    for part in ("--game", "--evolve.generations INT Generations.", "--workers.count", "--help-all"):
        assert part in text["pipeline"]
    assert text["pipeline"].count(" --") < 30
    for part in ("--collect.episodes", "--evolve.sigma0", "--memory.mixtures", "Episodes to collect."):
        assert part in text["collect"]


def test_jobs_are_listed_and_run_by_name() -> None:
    listed = type_in("jobs")
    assert listed.returncode == 0, listed.stderr
    for name, line in jobs().items():
        assert f"  {name:10} {line}\n" in listed.stdout
    helped = type_in("jobs", "plan", "--help")
    assert (helped.returncode, helped.stdout.split()[:4]) == (0, ["usage:", "python", "-m", "jobs.plan"])
    unknown = type_in("jobs", "dance")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("no job dance; the jobs are bench, collect,")


def test_bash_completes_jobs_and_their_flags(tmp_path: Path) -> None:
    made = type_in("jobs", "completion", "bash")
    assert made.returncode == 0, made.stderr
    (tmp_path / "wm.bash").write_text(made.stdout)
    ask = """
        source "$0"; function=$(complete -p wm | sed "s/.*-F \\([^ ]*\\).*/\\1/")
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        $function; echo "${COMPREPLY[@]}"
    """

    def completed(*words: str) -> list[str]:
        command = ["bash", "-c", ask, str(tmp_path / "wm.bash"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert completed("wm", "sc") == ["score"]
    assert {"--agent", "--episodes", "--run", "--local"} <= set(completed("wm", "score", "--"))
    assert completed("wm", "watch", "--ev") == ["--every"]
    assert completed("wm", "evolve", "--gen") == ["--generations"]


def test_rounds_override_fields_of_other_sections() -> None:
    words = [
        "tiny",
        "--run",
        "runs/new",
        "--rounds.evolve.generations",
        "5",
        "--rounds.evolve.no-refit",
        "--rounds.evolve.cut=50",
    ]
    _, _, config = parse("iterate", "", [*words, "--rounds.vision.frozen", "--rounds", "3"], "rounds")
    assert config.rounds.count == 3
    expected = {"evolve.generations": 5, "evolve.refit": False, "evolve.cut": 50.0, "vision.frozen": True}
    assert config.rounds.overrides == PRESETS["tiny"].rounds.overrides | expected


def test_the_flags_of_a_stage_work_without_its_section(tmp_path: Path) -> None:
    uri = str(tmp_path / "run")
    preset, where, config = parse("collect", "", ["tiny", "--run", uri, "--episodes=8", "--seed", "5"], "collect")
    assert (preset, where.run, where.local) == ("tiny", uri, False)
    assert (config.collect.episodes, config.seed) == (8, 5)
    _, _, config = parse("iterate", "", ["tiny", "--run", uri, "--rounds", "7"], "rounds")
    assert config.rounds.count == 7
    _, _, config = parse("score", "", ["tiny", "--run", uri, "--seed", "5", "--evolve.population", "8"], "score")
    assert (config.score.seed, config.seed, config.evolve.population) == (5, 1, 8)


def test_flags_default_to_the_config_of_the_run(tiny: Run) -> None:
    assert parse("evolve", "", ["--run", tiny.uri], "evolve")[2] == tiny.config
    derived = ["--run", tiny.uri + "-derived", "--base", tiny.uri, "--episodes", "5"]
    preset, _, config = parse("evolve", "", derived, "evolve")
    assert (preset, config) == ("tiny", replace(tiny.config, evolve=replace(tiny.config.evolve, episodes=5)))
    with pytest.raises(UserError, match="was started with the preset tiny"):
        parse("evolve", "", ["demo", "--run", tiny.uri], "evolve")


def test_rates_and_remaining_times_count_only_the_work_of_this_process() -> None:
    text = describe(Progress("collect", 30, 50, "episodes", {"score": -21.25}), seconds=10, before=20)
    assert text == "30/50 episodes · 1 episodes/s · 0:20 left · score -21.25"
    assert describe(Progress("collect", 20, 50, "episodes"), seconds=0, before=20) == "20/50 episodes"
    assert (format_duration(59.6), format_duration(3725)) == ("1:00", "1:02:05")
    evolving = Progress(
        "evolve", 5, 10, "generations", {"env_steps": 8e6, "best": 900.0, "mean": 640.0, "score": 812.0}
    )
    assert brief(evolving, seconds=18, before=0) == "0:18 left · score 812 · mean 640"
    assert brief(evolving, seconds=0, before=5) == "score 812 · mean 640"
    assert brief(Progress("vision", 9, 9, "steps", {"loss": 3.0}), seconds=18, before=0) == "in 0:18 · loss 3"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_terminal_shows_each_stage_and_its_figures_in_one_line(columns: int) -> None:
    code = """
from jobs.display import Display
from wm.pool import Progress
import logging
with Display(30.0, 6) as display:
    display.tell(Progress("collect", 0, 48, "shards"))
    display.tell(Progress("collect", 48, 48, "shards", {"frames": 106948.0}))
    logging.getLogger("wm.space").info("vision needs about 200 MB")
    display.tell(Progress("evolve", 0, 25, "generations"))
    display.tell(Progress("evolve", 5, 25, "generations", {"env_steps": 9943657.0, "best": 931.25, "mean": -640.25,
        "score": -812.75}))
"""
    shown = in_a_terminal(code, columns)
    assert max(map(len, shown)) <= columns
    assert any(line.startswith("1/6 collect") and " 100%" in line and "frames 106,948" in line for line in shown)
    last = next(line for line in reversed(shown) if line.startswith("2/6 evolve"))
    for part in ("━", " 20%", " left", "score -812.8", "mean -640.2"):
        assert part in last, last
    [logged] = [line for line in shown if "200 MB" in line]
    assert re.match(r"\d\d:\d\d:\d\d +vision needs about 200 MB", logged)


def in_a_terminal(code: str, columns: int) -> list[str]:
    """What a program leaves on a terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    program = subprocess.Popen([sys.executable, "-c", code], stderr=slave, env=environment | {"TERM": "xterm"})
    os.close(slave)
    data = b""
    with contextlib.suppress(OSError):  # EIO: the program has ended
        while part := os.read(master, 65536):
            data += part
    assert program.wait() == 0
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


def logged(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


@pytest.mark.parametrize(
    ("stage", "tag"),
    [
        ("vision", "vision/held_out_loss"),
        ("memory", "memory/held_out_nll"),
        ("evolve", "eval/mean_reward"),
        ("evolve", "rollout/ep_rew_mean"),
        ("score", "eval/mean_reward"),
    ],
)
def test_tensorboard_reads_the_metrics_of_a_run(tiny: Run, stage: str, tag: str) -> None:
    [file] = [path for path in Path(tiny.uri, stage).rglob("events.out.tfevents.*") if path.name.endswith(stage)]
    found = logged(file.parent).Scalars(tag)
    assert found
    if stage == "score":
        assert found[-1].value == pytest.approx(tiny.need("score").metrics["score"], rel=1e-6)


@pytest.mark.parametrize(("stage", "picture"), [("vision", "reconstructions"), ("memory", "filmstrip")])
def test_tensorboard_shows_the_pictures_of_a_run(tiny: Run, stage: str, picture: str) -> None:
    [path] = Path(tiny.uri, stage).rglob(f"{picture}.png")
    [shown] = logged(path.parent).Images(picture)
    assert shown.encoded_image_string == path.read_bytes()
    assert shown.width > 400
