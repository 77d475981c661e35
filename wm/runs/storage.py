"""Storage for files: a local folder or s3://bucket/prefix, behind one interface.

Readers never see incomplete files. On S3 an object appears whole or not at all; on a disk a file is written under a
temporary name, synced and then renamed. Files that must never be replaced (manifests, checkpoints) are written with
`put_new`, which is put-if-absent on both. Correctness depends on it alone.
"""

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import random
import re
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Set
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from wm.errors import UserError

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = 120.0  # how long failing requests to a bucket are retried
REQUEST_SECONDS = 60.0  # timeout of one request, which may carry a whole checkpoint
UNFINISHED = ".unfinished-"  # prefix of temporary files, which listings leave out
METADATA_SERVICE = "169.254.169.254"  # obstore requests the node's role from it if there are no other credentials
# Errors of a disk that retrying does not cure.
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
NOT_WRITABLE = DISK_FULL | {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    errno.ENAMETOOLONG,
}


class Storage(ABC):
    uri: str

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The content, or None if the key does not exist."""

    @abstractmethod
    def put_new(self, key: str, data: bytes) -> bool:
        """Write if the key does not exist, and return whether it was written."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write or replace atomically: for content that can be made again at any time."""

    @abstractmethod
    def sizes(self, prefix: str = "") -> dict[str, int]:
        """key -> size in bytes of all files below the prefix (a folder, or "" for all)."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the key if it exists."""

    @abstractmethod
    def open(self, key: str, size: int | None = None) -> Any:
        """A seekable binary file for partial reads; raises FileNotFoundError, then or when it is read.

        In a bucket each read is one request, and so is finding the size if it is not passed.
        """

    def free(self) -> int | None:
        """Free space in bytes, or None if there is no limit."""
        return None

    def commit(self, key: str, data: bytes) -> None:
        """Like `put_new`, but succeeds if the key already has exactly this content (a retry after a lost response)."""
        if not self.put_new(key, data) and self.get(key) != data:
            raise FileExistsError(
                f"{self.uri}/{key} exists with other content: two jobs wrote this run at the same time"
            )


def open_storage(uri: str) -> Storage:
    """The storage at this URI."""
    if not uri.strip() or not uri.isprintable():
        raise UserError(f"{uri!r} names no place: use a folder or s3://bucket/prefix")
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UserError(f"{uri} is no valid URI ({error}): use a folder or s3://bucket/prefix") from None
    if parts.scheme == "s3":
        if not parts.netloc:
            raise UserError(f"{uri} has no bucket name: use s3://bucket/prefix")
        return Bucket(uri.rstrip("/"))
    if parts.scheme not in ("", "file"):
        raise UserError(f"{uri} has an unknown scheme: use a folder or s3://bucket/prefix")
    return Folder(parts.path if parts.scheme else uri)


class Folder(Storage):
    """A folder on this machine, created by the first write."""

    def __init__(self, path: str):
        try:
            self.root = Path(path).expanduser().absolute()
        except RuntimeError:  # ~somebody who does not exist
            raise UserError(f"{path} names no folder, since there is no such user: use another folder") from None
        self.uri = str(self.root)

    def get(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (IsADirectoryError, PermissionError) as error:
            raise UserError(
                f"can't read {self.root / key} ({error.strerror}): remove it or fix its permissions"
            ) from None

    def put_new(self, key: str, data: bytes) -> bool:
        with self._temporary(key, data) as (unfinished, final):
            try:
                with self._explain_errors(final, DISK_FULL):
                    os.link(unfinished, final)  # unlike rename, this fails if the name exists
            except FileExistsError:
                return False
            return True

    def put(self, key: str, data: bytes) -> None:
        with self._temporary(key, data) as (unfinished, final), self._explain_errors(final, DISK_FULL):
            os.replace(unfinished, final)

    @contextlib.contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        final = self.root / key
        unfinished = final.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
        try:
            with self._explain_errors(final):
                final.parent.mkdir(parents=True, exist_ok=True)
                with open(unfinished, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            yield unfinished, final
            folder = os.open(final.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # otherwise a power failure may lose the name
            finally:
                os.close(folder)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink()

    @contextlib.contextmanager
    def _explain_errors(self, final: Path, permanent: Set[int] = NOT_WRITABLE) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in permanent:
                raise
            raise UserError(
                f"can't write {final} ({error.strerror}): free some space, fix the permissions, or use another folder"
            ) from None

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found = {}
        for folder, _, names in os.walk(self.root / prefix, onerror=self._raise_unless_missing):
            for name in names:
                if name.startswith(UNFINISHED):
                    continue
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # deleted in the meantime
                    found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def _raise_unless_missing(self, error: OSError) -> None:
        if isinstance(error, NotADirectoryError):
            raise UserError(f"{error.filename} is a file: use a folder or a new name") from None
        if not isinstance(error, FileNotFoundError):
            raise UserError(
                f"can't read {error.filename} ({error.strerror}): fix the permissions or use another folder"
            )

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def open(self, key: str, size: int | None = None) -> BinaryIO:
        return open(self.root / key, "rb")

    def free(self) -> int | None:
        existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        return shutil.disk_usage(existing).free


class Bucket(Storage):
    """A prefix in a bucket of S3 or of an S3-compatible store (AWS_ENDPOINT_URL)."""

    def __init__(self, uri: str):
        import obstore
        from obstore.store import S3Store

        self.uri, self.obs = uri, obstore
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
        options: dict[str, Any] = {
            "config": {"endpoint": endpoint} if endpoint else None,
            "client_options": {
                "allow_http": endpoint.startswith("http://"),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "connect_timeout": timedelta(seconds=min(5.0, REQUEST_SECONDS)),
            },
            **({"credential_provider": _profile_credentials()} if "AWS_PROFILE" in os.environ else {}),
        }
        # obstore retries single requests after short failures; `_retry` covers longer ones.
        retries: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=20)}
        self.store = S3Store.from_url(uri, retry_config=retries, **options)
        # It must not retry conditional puts: "already exists" could then mean that the first attempt succeeded.
        self.without_retries = S3Store.from_url(uri, retry_config={"max_retries": 0}, **options)

    def get(self, key: str) -> bytes | None:
        try:
            return self._retry(lambda: bytes(self.obs.get(self.store, key).bytes()))
        except FileNotFoundError:
            return None

    def put_new(self, key: str, data: bytes) -> bool:
        tries = 0

        def put() -> None:
            nonlocal tries
            tries += 1
            # One request, never multipart: only a single put can be conditional.
            self.obs.put(self.without_retries, key, data, mode="create", use_multipart=False)

        try:
            self._retry(put)
        except FileExistsError:
            return tries > 1 and self.get(key) == data  # ours, if only the response was lost
        return True

    def put(self, key: str, data: bytes) -> None:
        self._retry(lambda: self.obs.put(self.store, key, data))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        def listed() -> dict[str, int]:
            batches = self.obs.list(self.store, prefix=prefix or None)
            return {entry["path"]: entry["size"] for batch in batches for entry in batch}

        return dict(sorted(self._retry(listed).items()))

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._retry(lambda: self.obs.delete(self.store, key))

    def open(self, key: str, size: int | None = None) -> Any:
        if size is None:
            size = self._retry(lambda: int(self.obs.head(self.store, key)["size"]))
        return io.BufferedReader(_ObjectReader(self, key, size), 1)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._retry(lambda: bytes(self.obs.get_range(self.store, key, start=start, length=length)))

    def _retry(self, request: Callable[[], T]) -> T:
        """The result of the request, retried with backoff while the store fails, for `RETRY_SECONDS` at most."""
        end, pause, logged = time.monotonic() + RETRY_SECONDS, 0.1, False
        while True:
            try:
                return request()
            except (FileNotFoundError, self.obs.exceptions.BaseError) as error:
                known, permanent = self._translate(error)
                if permanent or time.monotonic() + pause > end:
                    raise known from None
            if not logged:
                logged = True
                log.warning("%s: %s; retrying for %.0f s", self.uri, known, RETRY_SECONDS)
            time.sleep(pause * random.uniform(0.5, 1))  # so that workers do not retry at the same moment
            pause = min(2 * pause, 5.0)

    def _translate(self, error: Exception) -> tuple[Exception, bool]:
        """A built-in exception or UserError for an error of obstore, and whether retrying is pointless."""
        errors, text, bucket = self.obs.exceptions, str(error), urlsplit(self.uri).netloc
        if "NoSuchBucket" in text:
            return UserError(f"no bucket {bucket}: create it (`aws s3 mb s3://{bucket}`) or use another"), True
        if isinstance(error, errors.AlreadyExistsError):
            return FileExistsError(text), True
        if isinstance(error, FileNotFoundError):
            return error, True
        denied = isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError)
        if denied or "403 Forbidden" in text or METADATA_SERVICE in text:
            return UserError(
                f"no access to the bucket {bucket}: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or"
                " this node's role, and their permissions"
            ), True
        if "redirect" in text or "AuthorizationHeaderMalformed" in text:
            return UserError(f"the bucket {bucket} is in another region: set AWS_REGION to that region"), True
        return OSError(text.splitlines()[0]), bool(re.search(r"status code: 4(?!08|29)\d\d", text))


class _ObjectReader(io.RawIOBase):
    """An object as a Python file, which pyarrow needs."""

    def __init__(self, bucket: Bucket, key: str, size: int):
        self.bucket, self.key, self.size, self.at = bucket, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + {0: 0, 1: self.at, 2: self.size}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self.size - self.at)
        if length <= 0:
            return 0
        data = self.bucket.get_range(self.key, self.at, length)
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def _profile_credentials() -> Any:
    """Credentials of AWS_PROFILE, which obstore does not read itself (boto3 is part of the `aws` extra)."""
    from obstore.auth.boto3 import Boto3CredentialProvider

    return Boto3CredentialProvider()


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
