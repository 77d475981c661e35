"""A place for files: a local folder or s3://bucket/prefix, behind the same few verbs.

Whoever reads never sees half of anything. On S3 an object appears whole or not at all; on a disk a
file is written beside, synced and only then given its name. What must never be replaced (manifests,
checkpoints) goes through `put_new`, which is put-if-absent on both: correctness rests on it alone.
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

PATIENCE = 120.0  # seconds for which a store in trouble is asked again
REQUEST_SECONDS = 60.0  # for one request, which may carry a whole checkpoint
UNFINISHED = ".unfinished-"  # no loader looks for such names
# What a disk says when trying again won't help.
FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = FULL | {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    errno.ENAMETOOLONG,
}


class Storage(ABC):
    uri: str

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The content, or None where there is nothing."""

    @abstractmethod
    def put_new(self, key: str, data: bytes) -> bool:
        """Write if there is nothing yet; False, and nothing done, if there is."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write or replace, whole: for what can be made again at any time."""

    @abstractmethod
    def sizes(self, prefix: str = "") -> dict[str, int]:
        """key -> bytes of everything below the prefix (a folder, or "")."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove it; nothing happens where there is nothing."""

    @abstractmethod
    def open(self, key: str) -> Any:
        """A seekable binary file for reading parts, or FileNotFoundError."""

    def free(self) -> int | None:
        """Bytes that there is room for, or None where nobody counts them."""
        return None

    def commit(self, key: str, data: bytes) -> None:
        """put_new, where finding exactly these bytes already there is as good (a retry after a lost answer)."""
        if not self.put_new(key, data) and self.get(key) != data:
            raise FileExistsError(f"{self.uri}/{key} exists with another content: two jobs wrote this run at once")


def open_storage(uri: str) -> Storage:
    """The place of that URI."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise UserError(f"{uri} names no bucket: say s3://bucket/prefix")
        return Bucket(uri.rstrip("/"))
    if parts.scheme not in ("", "file"):
        raise UserError(f"{uri}: no place of that kind; say a folder or s3://bucket/prefix")
    return Folder(parts.path if parts.scheme else uri)


class Folder(Storage):
    """A folder on this machine, made when something is put there."""

    def __init__(self, path: str):
        self.root = Path(path).expanduser().absolute()
        self.uri = str(self.root)

    def get(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put_new(self, key: str, data: bytes) -> bool:
        with self._beside(key, data) as (unfinished, final):
            try:
                with self._writing(final, FULL):
                    os.link(unfinished, final)  # unlike rename, this refuses what exists
            except FileExistsError:
                return False
            return True

    def put(self, key: str, data: bytes) -> None:
        with self._beside(key, data) as (unfinished, final), self._writing(final, FULL):
            os.replace(unfinished, final)

    @contextlib.contextmanager
    def _beside(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        final = self.root / key
        unfinished = final.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
        try:
            with self._writing(final):
                final.parent.mkdir(parents=True, exist_ok=True)
                with open(unfinished, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            yield unfinished, final
            folder = os.open(final.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # else the name itself may be lost with the power
            finally:
                os.close(folder)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink()

    @contextlib.contextmanager
    def _writing(self, final: Path, hopeless: Set[int] = REFUSED) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in hopeless:
                raise
            raise UserError(
                f"can't write {final} ({error.strerror}): make room or get the rights there, or name another folder"
            ) from None

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found = {}
        for folder, _, names in os.walk(self.root / prefix, onerror=self._unless_missing):
            for name in names:
                if name.startswith(UNFINISHED):
                    continue
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # deleted while we look
                    found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def _unless_missing(self, error: OSError) -> None:
        if isinstance(error, NotADirectoryError):
            raise UserError(f"{error.filename} is a file: name a folder, or a new name for one") from None
        if not isinstance(error, FileNotFoundError):
            raise UserError(f"can't read {error.filename} ({error.strerror}): get the rights, or name another folder")

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        return open(self.root / key, "rb")

    def free(self) -> int | None:
        existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        return shutil.disk_usage(existing).free


class Bucket(Storage):
    """A prefix in an S3 bucket, or in a store that speaks S3 (AWS_ENDPOINT_URL names it)."""

    def __init__(self, uri: str):
        import obstore
        from obstore.store import S3Store

        self.uri, self.obs = uri, obstore
        plain = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
        options: dict[str, Any] = {
            "config": {"endpoint": plain} if plain else None,
            "client_options": {
                "allow_http": plain.startswith("http://"),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "connect_timeout": timedelta(seconds=min(5.0, REQUEST_SECONDS)),
            },
            **({"credential_provider": _profile()} if "AWS_PROFILE" in os.environ else {}),
        }
        # What may be asked twice is, by the library, part by part; for longer troubles there is `_ask`.
        retries: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=20)}
        self.store = S3Store.from_url(uri, retry_config=retries, **options)
        # A conditional put is not repeated behind our back: "it exists" could then mean that the first one got through.
        self.once = S3Store.from_url(uri, retry_config={"max_retries": 0}, **options)

    def get(self, key: str) -> bytes | None:
        try:
            return self._ask(lambda: bytes(self.obs.get(self.store, key).bytes()))
        except FileNotFoundError:
            return None

    def put_new(self, key: str, data: bytes) -> bool:
        tries = 0

        def put() -> None:
            nonlocal tries
            tries += 1
            # One request, never multipart: only a single put can be conditional.
            self.obs.put(self.once, key, data, mode="create", use_multipart=False)

        try:
            self._ask(put)
        except FileExistsError:
            return tries > 1 and self.get(key) == data  # ours, if only the answer was lost
        return True

    def put(self, key: str, data: bytes) -> None:
        self._ask(lambda: self.obs.put(self.store, key, data))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        def listed() -> dict[str, int]:
            batches = self.obs.list(self.store, prefix=prefix or None)
            return {entry["path"]: entry["size"] for batch in batches for entry in batch}

        return dict(sorted(self._ask(listed).items()))

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(lambda: self.obs.delete(self.store, key))

    def open(self, key: str) -> Any:
        return io.BufferedReader(_Parts(self, key), 1)

    def _ask(self, request: Callable[[], T]) -> T:
        """Its answer, asked for again and again while the store is in trouble, up to a bound."""
        end, pause, said = time.monotonic() + PATIENCE, 0.1, False
        while True:
            try:
                return request()
            except (FileNotFoundError, self.obs.exceptions.BaseError) as error:
                known, hopeless = self._known(error)
                if hopeless or time.monotonic() + pause > end:
                    raise known from None
            if not said:
                said = True
                log.warning("%s: %s; trying again, for %.0f s", self.uri, known, PATIENCE)
            time.sleep(pause * random.uniform(0.5, 1))  # else all workers come back at the same instant
            pause = min(2 * pause, 5.0)

    def _known(self, error: Exception) -> tuple[Exception, bool]:
        """The store's answer as an error that the rest of us knows, and whether asking again is hopeless."""
        errors, text, bucket = self.obs.exceptions, str(error), urlsplit(self.uri).netloc
        if "NoSuchBucket" in text:
            cure = f"there is no bucket {bucket}: make it (`aws s3 mb s3://{bucket}`), or name another"
            return UserError(cure), True
        if isinstance(error, errors.AlreadyExistsError):
            return FileExistsError(text), True
        if isinstance(error, FileNotFoundError):
            return error, True
        denied = isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError)
        if denied or "403 Forbidden" in text or METADATA in text:
            cure = (
                f"no access to the bucket {bucket}: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
                " or AWS_PROFILE, or this node's role, and what they may do there"
            )
            return UserError(cure), True
        if "redirect" in text or "AuthorizationHeaderMalformed" in text:
            return UserError(f"the bucket {bucket} is in another region: set AWS_REGION to its own"), True
        return OSError(text.splitlines()[0]), bool(re.search(r"status code: 4(?!08|29)\d\d", text))


class _Parts(io.RawIOBase):
    """obstore's reader as a file of Python's own kind, which pyarrow asks for; opened again where it broke."""

    def __init__(self, bucket: Bucket, key: str):
        self.bucket, self.key = bucket, key
        self.reader: Any = None
        self.at = 0
        self.size = bucket._ask(lambda: self._open().size)

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
        data = self.bucket._ask(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def _read(self, length: int) -> Any:
        try:
            reader = self.reader or self._open()
            reader.seek(self.at)
            return reader.read(length)
        except Exception:
            self.reader = None
            raise

    def _open(self) -> Any:
        self.reader = self.bucket.obs.open_reader(self.bucket.store, self.key)
        return self.reader


METADATA = "169.254.169.254"  # asked for the node's role where no other credentials are


def _profile() -> Any:
    """Credentials of a named profile, which obstore itself does not read (boto3 comes with the AWS tools)."""
    from obstore.auth.boto3 import Boto3CredentialProvider

    return Boto3CredentialProvider()


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
