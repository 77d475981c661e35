"""Storage: put-if-absent, atomic writes, and clear errors."""

import os
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import wm.runs.storage as storage_module
from wm.errors import UserError
from wm.runs.storage import UNFINISHED, open_storage


def test_put_get_sizes_delete(uri: str) -> None:
    storage = open_storage(uri)
    assert storage.get("a/b") is None
    assert storage.sizes() == {}
    storage.put("a/b", b"one")
    storage.put("a/b", b"three")
    storage.put("ab", b"")
    assert storage.get("a/b") == b"three"
    assert storage.sizes() == {"a/b": 5, "ab": 0}
    assert storage.sizes("a") == {"a/b": 5}  # a folder, not a prefix of names
    file = storage.open("a/b")
    file.seek(2)
    assert bytes(file.read()) == b"ree"
    file.close()
    storage.delete("a/b")
    storage.delete("a/b")
    assert storage.get("a/b") is None
    with pytest.raises(FileNotFoundError):
        storage.open("a/b")


def test_put_new_refuses_existing_keys(uri: str) -> None:
    storage = open_storage(uri)
    assert storage.put_new("key", b"first")
    assert not storage.put_new("key", b"second")
    assert storage.get("key") == b"first"
    storage.commit("key", b"first")  # a retry
    with pytest.raises(FileExistsError, match="other content"):
        storage.commit("key", b"second")


def test_exactly_one_of_many_writers_wins(uri: str) -> None:
    barrier = threading.Barrier(12)

    def attempt(number: int) -> bool:
        storage = open_storage(uri)
        barrier.wait()
        return storage.put_new("folder/key", b"%d" % number * 10_000)

    with ThreadPoolExecutor(12) as threads:
        won = list(threads.map(attempt, range(12)))
    assert won.count(True) == 1
    assert open_storage(uri).get("folder/key") == b"%d" % won.index(True) * 10_000
    assert list(open_storage(uri).sizes()) == ["folder/key"]


def test_readers_see_whole_files_only(uri: str) -> None:
    storage, sizes = open_storage(uri), (10, 400_000)
    seen: set[int] = set()
    names: set[str] = set()
    storage.put("key", b"x" * sizes[0])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(len(storage.get("key") or b""))
            seen.update(storage.sizes().values())
            names.update(storage.sizes())

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for number in range(40):
            storage.put("key", b"x" * sizes[number % 2])
        stop.set()
        for reader in readers:
            reader.result()
    assert seen
    assert seen <= set(sizes)
    assert names == {"key"}


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    """A killed writer leaves such a file."""
    storage = open_storage(str(tmp_path))
    storage.put("folder/key", b"x")
    (tmp_path / "folder" / f"{UNFINISHED}0123").write_bytes(b"half")
    assert storage.sizes() == {"folder/key": 1}


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    storage = open_storage(str(tmp_path))
    storage.put("key", b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        storage.put("key", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert storage.get("key") == b"before"


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        storage = open_storage(str(path))
        with pytest.raises(UserError, match="file"):
            storage.put_new("key", b"")
    with pytest.raises(UserError, match="is a file: use a folder"):
        open_storage(str(tmp_path / "file")).sizes()


def test_a_read_only_folder() -> None:
    with pytest.raises(UserError, match="can't write /proc/runs/key"):
        open_storage("/proc/runs").put("key", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root has all permissions")
def test_a_folder_without_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        open_storage(str(tmp_path)).put("key", b"")
    tmp_path.chmod(0o000)
    with pytest.raises(UserError, match="fix the permissions"):
        open_storage(str(tmp_path)).sizes()


@pytest.mark.parametrize("uri", ["gs://bucket/run", "http://host/run", "s3://"])
def test_an_unknown_kind_of_uri(uri: str) -> None:
    with pytest.raises(UserError, match=r"use (a folder or )?s3://bucket/prefix"):
        open_storage(uri)


def test_a_missing_bucket(s3: Callable[[str], str]) -> None:
    storage = open_storage("s3://no-such-bucket/run")
    for attempt in (lambda: storage.sizes(), lambda: storage.put("key", b""), lambda: storage.put_new("key", b"")):
        with pytest.raises(UserError, match="aws s3 mb s3://no-such-bucket"):
            attempt()


def test_wrong_credentials(s3: Callable[[str], str]) -> None:
    storage = open_storage(s3("denied"))

    def allowed(requests: bytes) -> None:
        """The server checks credentials after this many requests."""
        url = os.environ["AWS_ENDPOINT_URL"] + "/moto-api/reset-auth"
        request = urllib.request.Request(url, requests, {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request).close()

    allowed(b"0")
    try:
        for attempt in (lambda: storage.sizes(), lambda: storage.get("key"), lambda: storage.put_new("key", b"")):
            with pytest.raises(UserError, match="AWS_ACCESS_KEY_ID"):
                attempt()
    finally:
        allowed(b"inf")
    assert storage.put_new("key", b"")


def test_an_unreachable_store_is_not_a_user_error(s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may respond later, so callers may retry."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(storage_module, "RETRY_SECONDS", 0.0)
    storage = open_storage(s3("nobody"))
    with pytest.raises(OSError, match="S3"):
        storage.sizes()
