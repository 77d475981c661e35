"""A run: its frozen config, its manifests, and the stages that it reuses from a base."""

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wm.config.presets import PRESETS
from wm.config.schema import FORMAT, Config
from wm.errors import UserError
from wm.pool import Progress
from wm.runs.manifest import Manifest
from wm.runs.provenance import warn_of_differences
from wm.runs.reader import sealed
from wm.runs.run import Run, open_existing, open_run, start_run
from wm.runs.status import stage_statuses
from wm.runs.storage import open_storage, sha256

TINY = PRESETS["tiny"]


def with_steps(config: Config, steps: int) -> Config:
    return replace(config, vision=replace(config.vision, steps=steps))


def with_seed(config: Config, seed: int) -> Config:
    return replace(config, seed=seed)


def commit(
    run: Run, stage: str, extent: int, content: bytes = b"data", of: str | None = None, **inputs: str
) -> Manifest:
    part = run.stage(stage, of=of)
    key = part.key("weights")
    run.storage.put(key, content)
    made: dict[str, Any] = {"weights": key, "files": {key: sha256(content)}}
    if stage in ("collect", "latents"):
        made = {"shards": [{"key": key, "sha256": sha256(content), "bytes": len(content), "lengths": [1]}]}
    return part.commit(extent, inputs=inputs, content=made, metrics={"frames": 1, "bytes": 4, "loss": 1.5})


def test_the_config_is_frozen(uri: str) -> None:
    assert open_run(uri) is None
    start_run(uri, "tiny", TINY)
    run = open_existing(uri)
    assert (run.config, run.preset, run.base) == (TINY, "tiny", None)
    with pytest.raises(UserError, match=r"frozen with --seed 1, not 2"):
        start_run(uri, "tiny", with_seed(TINY, 2))
    assert open_existing(uri).config == TINY


def test_auto_precision_is_frozen_as_what_the_first_machine_is_fast_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "run")
    auto = replace(TINY, controller=replace(TINY.controller, precision="auto"))
    monkeypatch.setattr("wm.runs.run.fast_precision", lambda device: "bfloat16")
    assert start_run(uri, "tiny", auto).config.controller.precision == "bfloat16"
    monkeypatch.setattr("wm.runs.run.fast_precision", lambda device: "float32")
    assert start_run(uri, "tiny", auto).config.controller.precision == "bfloat16"
    with pytest.raises(UserError, match=r"frozen with --controller.precision bfloat16, not float32"):
        start_run(uri, "tiny", TINY)


def test_a_wrong_config_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        start_run(str(tmp_path / "run"), "tiny", with_seed(TINY, 0))
    assert not (tmp_path / "run").exists()


def test_extents_grow_and_are_stored(uri: str) -> None:
    for steps in (6, 7, 7, 9):
        assert start_run(uri, "tiny", with_steps(TINY, steps)).config.vision.steps == steps
    assert open_existing(uri).config == with_steps(TINY, 9)
    assert list(open_storage(uri).sizes()) == ["config-0001.json", "config-0002.json", "config.json"]
    assert open_existing(uri).revision == 2


def test_free_fields_are_not_stored(uri: str) -> None:
    start_run(uri, "tiny", TINY)
    run = start_run(uri, "tiny", replace(TINY, workers=replace(TINY.workers, count=3)))
    assert run.config.workers.count == 3
    assert list(run.storage.sizes()) == ["config.json"]


def at_once(*configs: Config, uri: str) -> list[Run | UserError]:
    """Start or extend one run with each of these configs at the same moment."""
    barrier = threading.Barrier(len(configs))

    def start(config: Config) -> Run | UserError:
        barrier.wait()
        try:
            return start_run(uri, "tiny", config)
        except UserError as error:
            return error

    with ThreadPoolExecutor(len(configs)) as threads:
        return list(threads.map(start, configs))


def test_one_of_many_that_start_a_run_wins(uri: str) -> None:
    results = at_once(*(with_seed(TINY, seed) for seed in range(1, 9)), uri=uri)
    winners = [result for result in results if isinstance(result, Run)]
    assert len(winners) == 1
    assert open_existing(uri).config == winners[0].config
    for result in results:
        if isinstance(result, UserError):
            assert f"--seed {winners[0].config.seed}, not" in str(result)


def test_concurrent_changes_of_an_extent_all_succeed(uri: str) -> None:
    start_run(uri, "tiny", TINY)
    results = at_once(*(with_steps(TINY, steps) for steps in range(7, 13)), uri=uri)
    assert open_existing(uri).config.vision.steps in range(7, 13)
    assert all(isinstance(result, Run) for result in results)


def test_an_extent_can_fall_to_what_is_done(uri: str) -> None:
    run = start_run(uri, "tiny", with_steps(TINY, 5_000))  # a zero too many
    assert start_run(uri, "tiny", with_steps(TINY, 50)).config.vision.steps == 50
    commit(run, "vision", 6)
    with pytest.raises(UserError, match=r"--vision.steps must be 6 or more, since this run has come so far, got 5"):
        start_run(uri, "tiny", with_steps(TINY, 5))
    run.storage.put("vision/checkpoints/step-0000000021-0123456789ab.safetensors", b"")
    assert stage_statuses(run)["vision"].checkpoint == 21
    # A training evaluates at its last step, so at least one must be left.
    with pytest.raises(UserError, match=r"--vision.steps must be 22 or more, .* got 21"):
        start_run(uri, "tiny", with_steps(TINY, 21))
    assert start_run(uri, "tiny", with_steps(TINY, 22)).config.vision.steps == 22
    assert open_existing(uri).config.vision.steps == 22


def test_a_manifest_completes_a_stage(uri: str) -> None:
    run = start_run(uri, "tiny", TINY)
    assert run.stage("vision").manifest() is None
    with pytest.raises(UserError, match=f"no completed vision stage in {run.uri}: run `python -m jobs.vision --run"):
        run.need("vision")
    made = commit(run, "vision", 6)
    found = open_existing(uri).need("vision")
    assert found == made
    assert found.digest == made.digest
    assert found.read("vision/weights") == b"data"
    assert {"code", "python", "versions", "processor", "cpus", "seconds", "at"} == found.made.keys()
    assert {"torch", "numpy", "gymnasium", "pyarrow"} <= found.made["versions"].keys()
    longer = start_run(uri, "tiny", with_steps(TINY, 7))
    with pytest.raises(UserError, match=r"vision is not complete in .* \(6 of 7\): run `python -m jobs.vision --run"):
        longer.need("vision")


def test_a_manifest_made_before_a_field_existed_counts_with_its_default(tmp_path: Path) -> None:
    run = start_run(str(tmp_path / "run"), "tiny", TINY)
    commit(run, "vision", 6)
    [path] = (tmp_path / "run/vision").glob("manifest-*.json")
    values = json.loads(path.read_text())
    del values["config"]["vision.change-weight"], values["seal"]
    path.write_bytes(sealed(values, "vision/manifest-0000000006.json"))
    assert run.stage("vision").manifest() is not None
    other = replace(TINY, vision=replace(TINY.vision, change_weight=1.0))
    assert start_run(str(tmp_path / "other"), "tiny", other, base=run.uri).stage("vision").manifest() is None


def test_a_digest_depends_on_the_content_only(tmp_path: Path) -> None:
    one, two, three = (start_run(str(tmp_path / name), "tiny", TINY) for name in ("one", "two", "three"))
    assert commit(one, "vision", 6).digest == commit(two, "vision", 9).digest
    assert commit(one, "vision", 6).digest != commit(three, "vision", 6, content=b"other").digest


def test_the_furthest_manifest_counts(tmp_path: Path) -> None:
    run = start_run(str(tmp_path / "run"), "tiny", TINY)
    for extent in (6, 100, 9):
        commit(run, "vision", extent)
    stage = run.stage("vision")
    found = stage.manifest()
    assert found is not None
    assert found.extent == 100
    earlier = stage.manifest(9)
    assert earlier is not None
    assert earlier.extent == 9


def test_the_first_manifest_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = start_run(str(tmp_path / "run"), "tiny", TINY)
    first = commit(run, "vision", 6)
    again = run.stage("vision").commit(6, inputs={}, content={"weights": "x", "files": {}}, metrics={})
    assert again == first
    assert "its result is used" in caplog.text


def test_the_time_of_killed_jobs_counts(tmp_path: Path) -> None:
    run = start_run(str(tmp_path / "run"), "tiny", TINY)
    killed, last = run.stage("vision"), run.stage("vision")
    killed.begin()
    assert killed.clock is not None
    killed.clock.began -= 100
    killed.clock.saved -= 100
    killed.tell(Progress("vision", 3, 6, "steps"))
    last.begin()
    content = {"weights": "vision/x", "files": {"vision/x": "a" * 64}}
    made = last.commit(6, inputs={}, content=content, metrics={})
    assert made.made["seconds"] >= 100
    assert run.stage("memory", of="a" * 64).commit(6, inputs={}, content=content, metrics={}).made["seconds"] == 0


def test_a_stage_made_of_other_inputs_is_not_complete(tmp_path: Path) -> None:
    run = start_run(str(tmp_path / "run"), "tiny", TINY)
    commit(run, "memory", 6, of="a" * 64)
    assert run.stage("memory", of="a" * 64).complete(6)
    assert run.stage("memory", of="b" * 64).complete(6) is None


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"dat4")])
def test_a_missing_or_damaged_file_is_reported(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    made = commit(start_run(str(tmp_path), "tiny", TINY), "vision", 6)
    damage(tmp_path / "vision" / "weights")
    message = f"{tmp_path}/vision/weights is (missing|damaged .*): restore it, or delete the folder vision and run"
    with pytest.raises(UserError, match=message):
        made.read("vision/weights")


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"{}", b"[]", b"7", b'{"format": 3}', b'{"format": 3, "x": 2}'])
def test_an_invalid_manifest_is_refused(tmp_path: Path, garbage: bytes) -> None:
    run = start_run(str(tmp_path), "tiny", TINY)
    run.storage.put("vision/manifest-0000000006.json", garbage)
    with pytest.raises(
        UserError, match=r"manifest-0000000006.json is damaged \(.*\): delete it and run `python -m jobs"
    ):
        run.stage("vision").manifest()


@pytest.mark.parametrize("garbage", [b"", b"{", b"{}", b"[]", b"7"])
def test_an_invalid_config_is_refused(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "config.json").write_bytes(garbage)
    with pytest.raises(UserError, match=r"config.json is damaged \(.*\): delete it and start the run again"):
        open_run(str(tmp_path))


@pytest.mark.parametrize("version", [FORMAT - 1, FORMAT + 1])
def test_another_format_is_refused(tmp_path: Path, version: int) -> None:
    run = start_run(str(tmp_path), "tiny", TINY)
    commit(run, "vision", 6)
    for name in ("vision/manifest-0000000006.json", "config.json"):
        values = json.loads((tmp_path / name).read_text())
        del values["seal"]
        (tmp_path / name).write_bytes(sealed(values | {"format": version}, name))
    message = f"has format {version}, this version reads format {FORMAT}: use the version of this project that made it,"
    with pytest.raises(UserError, match=message):
        run.stage("vision").manifest()
    with pytest.raises(UserError, match=message):
        open_run(str(tmp_path))


def test_another_code_version_or_processor_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = start_run(str(tmp_path), "tiny", TINY)
    commit(run, "vision", 6)
    warn_of_differences.cache_clear()
    caplog.set_level(logging.WARNING)
    run.stage("vision").manifest()
    assert caplog.text == ""
    path = tmp_path / "vision" / "manifest-0000000006.json"
    values = json.loads(path.read_text())
    values["made"] |= {"code": "0.0.1+older", "processor": "other"}
    del values["seal"]
    path.write_bytes(sealed(values, "vision/manifest-0000000006.json"))
    for _ in range(3):
        run.stage("vision").manifest()
    assert caplog.text.count("0.0.1+older") == 1
    assert caplog.text.count("made on processor other") == 1


def test_a_run_reuses_the_stages_of_its_base(uri: str, tmp_path: Path) -> None:
    base = start_run(uri, "tiny", TINY)
    rollouts, vision = commit(base, "collect", 4), commit(base, "vision", 6)
    latents = commit(base, "latents", 4, of=vision.digest, collect=rollouts.digest)
    memory = commit(base, "memory", 6, of=vision.digest, latents=latents.digest)
    evolving = replace(TINY, evolve=replace(TINY.evolve, seed=5))
    run = start_run(str(tmp_path / "derived"), "tiny", evolving, base=uri)
    assert run.need("collect") == rollouts
    assert run.need("vision").read("vision/weights") == b"data"
    assert run.need("memory", of=vision.digest).digest == memory.digest
    assert list(run.storage.sizes()) == ["config.json"]  # nothing is copied
    again = open_existing(run.uri)
    assert again.base is not None
    assert again.base.uri == base.uri


def test_a_run_does_not_reuse_latents_and_m_of_other_rollouts(tmp_path: Path) -> None:
    """Even if V is the same."""
    base = start_run(str(tmp_path / "base"), "tiny", TINY)
    rollouts, vision = commit(base, "collect", 4), commit(base, "vision", 6)
    latents = commit(base, "latents", 4, of=vision.digest, collect=rollouts.digest)
    commit(base, "memory", 6, of=vision.digest, latents=latents.digest)
    config = replace(TINY, collect=replace(TINY.collect, agent=base.uri))
    run = start_run(str(tmp_path / "round"), "tiny", config, base=base.uri)

    def reused(stage: str) -> bool:
        return run.stage(stage, of=vision.digest).manifest() is not None

    commit(run, "vision", 6)
    assert not reused("latents")
    made = commit(run, "collect", 4, content=b"other rollouts")
    assert not reused("latents")
    assert not reused("memory")
    mine = commit(run, "latents", 4, content=b"other rollouts", of=vision.digest, collect=made.digest)
    assert run.need("latents", of=vision.digest) == mine
    assert not reused("memory")


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        ({}, {"collect", "vision"}),
        ({"seed": 2}, set()),
        ({"threads": 3}, set()),
        ({"vision": replace(TINY.vision, seed=1)}, {"collect"}),
        ({"vision": replace(TINY.vision, z=16)}, {"collect"}),
        ({"collect": replace(TINY.collect, policy="held")}, set()),  # V would see other frames
        ({"memory": replace(TINY.memory, hidden=8)}, {"collect", "vision"}),
        ({"vision": replace(TINY.vision, steps=7)}, {"collect"}),  # more than the base's V has
        ({"collect": replace(TINY.collect, episodes=2)}, {"collect", "vision"}),
    ],
)
def test_a_run_reuses_nothing_else_of_its_base(tmp_path: Path, change: dict[str, Any], reused: set[str]) -> None:
    base = start_run(str(tmp_path / "base"), "tiny", TINY)
    commit(base, "collect", 4)
    commit(base, "vision", 6)
    config = replace(TINY, **change)
    run = start_run(str(tmp_path / "derived"), "tiny", config, base=base.uri)
    wanted = {"collect": config.collect.episodes, "vision": config.vision.steps}
    assert {stage for stage, extent in wanted.items() if run.stage(stage).complete(extent)} == reused


def test_a_base_can_not_change(tmp_path: Path) -> None:
    one, two, run = (str(tmp_path / name) for name in ("one", "two", "run"))
    start_run(one, "tiny", TINY)
    start_run(two, "tiny", TINY)
    start_run(run, "tiny", TINY, base=one)
    assert start_run(run, "tiny", TINY).base is not None  # the flag is optional afterwards
    with pytest.raises(UserError, match=f"was started with --base {one}"):
        start_run(run, "tiny", TINY, base=two)
    with pytest.raises(UserError, match="was started without --base"):
        start_run(one, "tiny", TINY, base=two)


def test_a_missing_base(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no run in {tmp_path / 'nowhere'}"):
        start_run(str(tmp_path / "run"), "tiny", TINY, base=str(tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_a_run_in_a_missing_bucket(s3: Callable[[str], str]) -> None:
    for attempt in (open_run, lambda uri: start_run(uri, "tiny", TINY)):
        with pytest.raises(UserError, match="no bucket nowhere-at-all: create it"):
            attempt("s3://nowhere-at-all/run")


def test_a_file_instead_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: use a folder"):
        start_run(str(tmp_path / "file"), "tiny", TINY)
