"""A disk that is too small or becomes full gives one clear line, and no data is lost."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from processes import Job

from wm.config.presets import PRESETS
from wm.errors import UserError
from wm.formatting import format_bytes
from wm.pipeline import pipeline
from wm.pool import LocalPool, Progress
from wm.runs.disk_check import DiskSpaceCheck, check_disk_space
from wm.runs.run import Run, open_existing, start_run
from wm.runs.stages import STAGES
from wm.runs.status import stage_statuses
from wm.runs.storage import open_storage


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk."""
    mounted = []

    def mount(size: str) -> Path:
        path = tmp_path / f"disk-{size}"
        path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("this machine has no `mount`")
        if done.returncode:
            pytest.skip(f"mounting a disk is not permitted: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_estimates_have_the_right_magnitude(tiny: Run) -> None:
    for name, status in stage_statuses(tiny).items():
        estimate, slack = STAGES[name].bytes(tiny.config), 1.5e6  # pictures, manifests
        assert status.bytes < 1.5 * estimate + slack, status
        assert estimate < 3 * status.bytes + slack, status


def test_the_need_for_disk_space_is_logged_before_a_stage_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, storage = PRESETS["car-racing"], open_storage(str(tmp_path / "not" / "yet"))
    assert (storage.free() or 0) > 0
    begins = Progress("collect", 0, 1250, "shards")
    caplog.set_level("INFO")
    monkeypatch.setattr(storage, "free", lambda: 8_000_000_000)
    check_disk_space(config, storage, begins)
    assert f"collect needs about 9.83 GB; 8 GB free in {storage.uri}" in caplog.text
    assert "collect may not fit: about 1.83 GB are missing" in caplog.text
    monkeypatch.setattr(storage, "free", lambda: 4_000_000_000)
    with pytest.raises(UserError, match=r"collect needs about 9.83 GB, but .* has 4 GB free: free some space"):
        check_disk_space(config, storage, begins)
    check_disk_space(config, storage, Progress("collect", 1000, 1250, "shards"))  # most of it exists already
    monkeypatch.setattr(storage, "free", lambda: None)  # a bucket has no limit
    check_disk_space(config, storage, begins)


def test_each_stage_is_checked_once_at_its_first_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path))
    check = DiskSpaceCheck(PRESETS["car-racing"], storage)
    monkeypatch.setattr(storage, "free", lambda: 1000)
    check.tell(Progress("collect", 1250, 1250, "shards"))  # complete
    with pytest.raises(UserError, match="collect needs"):
        check.tell(Progress("collect", 0, 1250, "shards"))
    check.tell(Progress("collect", 1, 1250, "shards"))


def test_sizes_have_three_digits_and_a_unit() -> None:
    assert [format_bytes(number) for number in (7, 1234, 5.6e7, 1.5e12)] == ["7 B", "1.23 KB", "56 MB", "1,500 GB"]


def test_a_disk_that_is_too_small_is_refused_in_one_line(disk: Callable[[str], Path], job: Callable[..., Job]) -> None:
    uri = disk("1m") / "run"
    refused = job("collect", "demo", "--run", uri, "--local")
    assert refused.wait() == 2
    assert refused.stderr.splitlines()[-1].startswith(f"collect needs about 26.4 MB, but {uri} has 1.0")
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
    for stage in STAGES:
        with pytest.raises(UserError, match=r"can't write .* \(No space left on device\): free some space"):
            pipeline(run, LocalPool())
        assert full[-1] == stage
        assert open_existing(run.uri).config == run.config
        ballast.unlink()
    made = pipeline(run, LocalPool())
    assert [one.digest for one in made] == [one.digest for one in pipeline(tiny, LocalPool())]
    for manifest in made:
        for key in manifest.content.get("files", {}):
            manifest.read(key)
