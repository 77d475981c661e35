"""A run: its frozen config, what vouches for its stages, and what it borrows from another run."""

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
from wm.runs.run import Run, open_existing, open_run, start_run
from wm.runs.status import stage_statuses
from wm.runs.storage import open_storage, sha256, to_json

TINY = PRESETS["tiny"]


def with_steps(config: Config, steps: int) -> Config:
    return replace(config, vision=replace(config.vision, steps=steps))


def with_seed(config: Config, seed: int) -> Config:
    return replace(config, seed=seed)


def commit(
    run: Run, stage: str, extent: int, content: bytes = b"data", of: str | None = None, **inputs: str
) -> Manifest:
    corner = run.stage(stage, of=of)
    key = corner.key("weights")
    run.storage.put(key, content)
    files = {key: sha256(content)}
    return corner.commit(extent, inputs=inputs, content={"files": files}, metrics={"loss": 1.5})


def test_the_config_is_frozen(uri: str) -> None:
    assert open_run(uri) is None
    start_run(uri, "tiny", TINY)
    run = open_existing(uri)
    assert (run.config, run.preset, run.base) == (TINY, "tiny", None)
    with pytest.raises(UserError, match=r"--seed 1, not 2"):
        start_run(uri, "tiny", with_seed(TINY, 2))
    assert open_existing(uri).config == TINY


def test_a_wrong_config_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        start_run(str(tmp_path / "run"), "tiny", with_seed(TINY, 0))
    assert not (tmp_path / "run").exists()


def test_extents_grow_and_are_remembered(uri: str) -> None:
    for steps in (6, 7, 7, 9):
        assert start_run(uri, "tiny", with_steps(TINY, steps)).config.vision.steps == steps
    assert open_existing(uri).config == with_steps(TINY, 9)
    assert list(open_storage(uri).sizes()) == ["config-0001.json", "config-0002.json", "config.json"]
    assert open_existing(uri).revision == 2


def test_free_fields_leave_no_trace(uri: str) -> None:
    start_run(uri, "tiny", TINY)
    run = start_run(uri, "tiny", replace(TINY, workers=replace(TINY.workers, count=3)))
    assert run.config.workers.count == 3
    assert list(run.storage.sizes()) == ["config.json"]


def at_once(*configs: Config, uri: str) -> list[Run | UserError]:
    """Start or grow one run with each of these at the same instant."""
    barrier = threading.Barrier(len(configs))

    def start(config: Config) -> Run | UserError:
        barrier.wait()
        try:
            return start_run(uri, "tiny", config)
        except UserError as mistake:
            return mistake

    with ThreadPoolExecutor(len(configs)) as threads:
        return list(threads.map(start, configs))


def test_of_two_that_start_one_run_one_wins(uri: str) -> None:
    results = at_once(*(with_seed(TINY, seed) for seed in range(1, 9)), uri=uri)
    winners = [result for result in results if isinstance(result, Run)]
    assert len(winners) == 1
    assert open_existing(uri).config == winners[0].config
    for result in results:
        if isinstance(result, UserError):
            assert f"--seed {winners[0].config.seed}, not" in str(result)


def test_of_many_that_change_an_extent_each_is_heard_and_one_is_last(uri: str) -> None:
    start_run(uri, "tiny", TINY)
    results = at_once(*(with_steps(TINY, steps) for steps in range(7, 13)), uri=uri)
    assert open_existing(uri).config.vision.steps in range(7, 13)
    assert all(isinstance(result, Run) for result in results)


def test_an_extent_falls_as_far_as_what_is_done(uri: str) -> None:
    run = start_run(uri, "tiny", with_steps(TINY, 5_000))  # a zero too many
    assert start_run(uri, "tiny", with_steps(TINY, 50)).config.vision.steps == 50
    commit(run, "vision", 6)
    with pytest.raises(UserError, match=r"--vision.steps 5 is less than this run has come to: say 6 or more"):
        start_run(uri, "tiny", with_steps(TINY, 5))
    run.storage.put("vision/checkpoints/step-0000000021-0123456789ab.safetensors", b"")
    assert next(station for station in stage_statuses(run) if station.stage == "vision").begun == 21
    # A training measures at its last step, so it has to take one.
    with pytest.raises(UserError, match=r"--vision.steps 21 .* say 22 or more"):
        start_run(uri, "tiny", with_steps(TINY, 21))
    assert start_run(uri, "tiny", with_steps(TINY, 22)).config.vision.steps == 22
    assert open_existing(uri).config.vision.steps == 22


def test_a_manifest_vouches_for_a_stage(uri: str) -> None:
    run = start_run(uri, "tiny", TINY)
    assert run.stage("vision").manifest() is None
    with pytest.raises(UserError, match=f"no complete vision in {run.uri}: run `python -m jobs.train_vision --run"):
        run.need("vision")
    made = commit(run, "vision", 6)
    found = open_existing(uri).need("vision")
    assert found == made
    assert found.digest == made.digest
    assert found.read("vision/weights") == b"data"
    assert {"code", "python", "versions", "processor", "cpus", "seconds", "at"} == found.made.keys()
    assert {"torch", "numpy", "gymnasium", "pyarrow"} <= found.made["versions"].keys()
    with pytest.raises(UserError, match="no complete vision"):
        run.need("vision")


def test_a_digest_names_what_was_made_and_not_when(tmp_path: Path) -> None:
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


def test_the_first_manifest_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = start_run(str(tmp_path / "run"), "tiny", TINY)
    first = commit(run, "vision", 6)
    again = run.stage("vision").commit(6, inputs={}, content={"files": {}}, metrics={})
    assert again == first
    assert "its result stands" in caplog.text


def test_the_time_of_jobs_that_were_killed_counts(tmp_path: Path) -> None:
    run = start_run(str(tmp_path / "run"), "tiny", TINY)
    killed, last = run.stage("vision"), run.stage("vision")
    killed.begin()
    assert killed.clock is not None
    killed.clock.began -= 100
    killed.clock.noted -= 100
    killed.tell(Progress("vision", 3, 6, "steps"))
    last.begin()
    made = last.commit(6, inputs={}, content={"files": {}}, metrics={})
    assert made.made["seconds"] >= 100
    assert run.stage("memory").commit(6, inputs={}, content={"files": {}}, metrics={}).made["seconds"] == 0


def test_what_was_made_of_something_else_is_not_taken(tmp_path: Path) -> None:
    run = start_run(str(tmp_path / "run"), "tiny", TINY)
    commit(run, "memory", 6, of="a" * 64)
    assert run.stage("memory", of="a" * 64).complete(6)
    assert run.stage("memory", of="b" * 64).complete(6) is None


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"dat4")])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    made = commit(start_run(str(tmp_path), "tiny", TINY), "vision", 6)
    damage(tmp_path / "vision" / "weights")
    with pytest.raises(UserError, match=f"{tmp_path}/vision/weights is (missing|damaged): copy it back, or"):
        made.read("vision/weights")


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"{}", b"[]", b"7", b'{"format": 1}', b'{"format": 1, "x": 2}'])
def test_garbage_is_no_manifest(tmp_path: Path, garbage: bytes) -> None:
    run = start_run(str(tmp_path), "tiny", TINY)
    run.storage.put("vision/manifest-0000000006.json", garbage)
    with pytest.raises(UserError, match=r"manifest-0000000006.json is no manifest of ours: remove it"):
        run.stage("vision").manifest()


@pytest.mark.parametrize("garbage", [b"", b"{", b"{}", b"[]", b"7"])
def test_garbage_is_no_config(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "config.json").write_bytes(garbage)
    with pytest.raises(UserError, match=r"config.json is no config of ours"):
        open_run(str(tmp_path))


def test_another_format_is_an_error(tmp_path: Path) -> None:
    run = start_run(str(tmp_path), "tiny", TINY)
    commit(run, "vision", 6)
    for name in ("vision/manifest-0000000006.json", "config.json"):
        values = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_bytes(to_json(values | {"format": FORMAT + 1}))
    with pytest.raises(UserError, match="another version of this project"):
        run.stage("vision").manifest()
    with pytest.raises(UserError, match=rf"another version of this project \(format {FORMAT + 1}\)"):
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
    values["made"] |= {"code": "0.0.1+older", "processor": "abacus"}
    path.write_bytes(to_json(values))
    for _ in range(3):
        run.stage("vision").manifest()
    assert caplog.text.count("0.0.1+older") == 1
    assert caplog.text.count("abacus") == 1


def test_a_base_lends_what_is_the_same(uri: str, tmp_path: Path) -> None:
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


def test_a_base_lends_no_latents_and_no_m_of_other_rollouts(tmp_path: Path) -> None:
    """Though V is the same."""
    base = start_run(str(tmp_path / "base"), "tiny", TINY)
    rollouts, vision = commit(base, "collect", 4), commit(base, "vision", 6)
    latents = commit(base, "latents", 4, of=vision.digest, collect=rollouts.digest)
    commit(base, "memory", 6, of=vision.digest, latents=latents.digest)
    config = replace(TINY, collect=replace(TINY.collect, agent=base.uri))
    run = start_run(str(tmp_path / "round"), "tiny", config, base=base.uri)

    def lent(stage: str) -> bool:
        return run.stage(stage, of=vision.digest).manifest() is not None

    commit(run, "vision", 6)
    assert not lent("latents")
    made = commit(run, "collect", 4, content=b"another drive")
    assert not lent("latents")
    assert not lent("memory")
    mine = commit(run, "latents", 4, content=b"another drive", of=vision.digest, collect=made.digest)
    assert run.need("latents", of=vision.digest) == mine
    assert not lent("memory")


@pytest.mark.parametrize(
    ("change", "lent"),
    [
        ({}, {"collect", "vision"}),
        ({"seed": 2}, set()),
        ({"threads": 3}, set()),
        ({"vision": replace(TINY.vision, seed=1)}, {"collect"}),
        ({"vision": replace(TINY.vision, z=16)}, {"collect"}),
        ({"collect": replace(TINY.collect, policy="held")}, set()),  # so V would have seen other frames
        ({"memory": replace(TINY.memory, hidden=8)}, {"collect", "vision"}),
        ({"vision": replace(TINY.vision, steps=7)}, {"collect"}),  # and the base's V didn't get so far
        ({"collect": replace(TINY.collect, episodes=2)}, {"collect", "vision"}),
    ],
)
def test_a_base_lends_nothing_else(tmp_path: Path, change: dict[str, Any], lent: set[str]) -> None:
    base = start_run(str(tmp_path / "base"), "tiny", TINY)
    commit(base, "collect", 4)
    commit(base, "vision", 6)
    config = replace(TINY, **change)
    run = start_run(str(tmp_path / "derived"), "tiny", config, base=base.uri)
    wanted = {"collect": config.collect.episodes, "vision": config.vision.steps}
    assert {stage for stage, extent in wanted.items() if run.stage(stage).complete(extent)} == lent


def test_a_base_is_named_once_and_for_all(tmp_path: Path) -> None:
    one, two, run = (str(tmp_path / name) for name in ("one", "two", "run"))
    start_run(one, "tiny", TINY)
    start_run(two, "tiny", TINY)
    start_run(run, "tiny", TINY, base=one)
    assert start_run(run, "tiny", TINY).base is not None  # it may be left out afterwards
    with pytest.raises(UserError, match=f"was started with --base {one}"):
        start_run(run, "tiny", TINY, base=two)
    with pytest.raises(UserError, match="was started without --base"):
        start_run(one, "tiny", TINY, base=two)


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no run in {tmp_path / 'nowhere'}"):
        start_run(str(tmp_path / "run"), "tiny", TINY, base=str(tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_a_run_in_a_bucket_that_is_not_there(s3: Callable[[str], str]) -> None:
    for attempt in (open_run, lambda uri: start_run(uri, "tiny", TINY)):
        with pytest.raises(UserError, match="there is no bucket nowhere-at-all: make it"):
            attempt("s3://nowhere-at-all/run")


def test_a_run_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: name a folder"):
        start_run(str(tmp_path / "file"), "tiny", TINY)
