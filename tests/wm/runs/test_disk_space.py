"""A disk that is too small or becomes full: said before or in one line, and nothing is lost by it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from processes import Job
from wm.experiments.disk_space import ESTIMATES, check_disk_space

from wm.config.presets import PRESETS
from wm.errors import UserError
from wm.formatting import format_bytes
from wm.pipeline import pipeline
from wm.pool import LocalPool, Progress
from wm.runs.run import Run, open_existing, start_run
from wm.runs.status import stage_statuses
from wm.runs.storage import open_storage


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk of its own."""
    mounted = []

    def mount(format_bytes: str) -> Path:
        path = tmp_path / f"disk-{format_bytes}"
        path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={format_bytes}", "tmpfs", str(path)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no `mount` here")
        if done.returncode:
            pytest.skip(f"nobody may mount a disk here: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_estimates_are_of_the_right_size(tiny: Run) -> None:
    for station in stage_statuses(tiny):
        estimate, slack = ESTIMATES[station.stage](tiny.config), 1.5e6  # pictures, manifests
        assert station.bytes < 1.5 * estimate + slack, station
        assert estimate < 3 * station.bytes + slack, station


def test_what_is_needed_is_said_before_a_stage_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, storage = PRESETS["car-racing"], open_storage(str(tmp_path / "not" / "yet"))
    assert (storage.free() or 0) > 0
    begins = Progress("collect", 0, 1250, "shards")
    caplog.set_level("INFO")
    monkeypatch.setattr(storage, "free", lambda: 8_000_000_000)
    check_disk_space(config, storage, begins)
    assert f"collect needs about 9.83 GB; 8 GB are free in {storage.uri}" in caplog.text
    assert "collect may not fit: about 1.83 GB are missing" in caplog.text
    monkeypatch.setattr(storage, "free", lambda: 4_000_000_000)
    with pytest.raises(UserError, match=r"collect needs about 9.83 GB, but .* has room for 4 GB: make room"):
        check_disk_space(config, storage, begins)
    check_disk_space(config, storage, Progress("collect", 1000, 1250, "shards"))  # most of it is there
    monkeypatch.setattr(storage, "free", lambda: None)  # a bucket has no end
    check_disk_space(config, storage, begins)


def test_sizes_are_said_as_people_say_them() -> None:
    assert [format_bytes(number) for number in (7, 1234, 5.6e7, 1.5e12)] == ["7 B", "1.23 KB", "56 MB", "1,500 GB"]


def test_a_disk_that_is_too_small_is_refused_in_one_line(disk: Callable[[str], Path], job: Callable[..., Job]) -> None:
    uri = disk("1m") / "run"
    refused = job("collect", "demo", "--run", uri, "--local")
    assert refused.wait() == 2
    assert refused.stderr.splitlines()[-1].startswith(f"collect needs about 23.6 MB, but {uri} has room for 1.0")
    assert "Traceback" not in refused.stderr
    assert list(open_existing(str(uri)).storage.sizes()) == ["config.json"]


def test_a_disk_that_becomes_full_in_any_stage(disk: Callable[[str], Path], tiny: Run) -> None:
    folder = disk("260m")
    ballast, full = folder / "ballast", []
    run = start_run(str(folder / "run"), "tiny", PRESETS["tiny"])

    def fill(progress: Progress) -> None:
        if progress.stage not in full and progress.done < progress.total:
            full.append(progress.stage)
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)

    run.tell = fill
    for stage in ("collect", "vision", "latents", "memory", "evolve", "score"):
        with pytest.raises(UserError, match=r"can't write .* \(No space left on device\): make room"):
            pipeline(run, LocalPool())
        assert full[-1] == stage
        assert open_existing(run.uri).config == run.config
        ballast.unlink()
    made = pipeline(run, LocalPool())
    assert [one.digest for one in made] == [one.digest for one in pipeline(tiny, LocalPool())]
    for manifest in made:
        for key in manifest.content.get("files", {}):
            manifest.read(key)
