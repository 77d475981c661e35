"""A place for files: a local folder or s3://bucket/prefix, behind the same few verbs.

Whoever reads never sees half of anything. On S3 an object appears whole or not at all; on a disk a
file is written beside, synced and only then given its name. What must never be replaced (manifests,
checkpoints) goes through `put_new`, which is put-if-absent on both: correctness rests on it alone.
"""

import contextlib
import errno
import io
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from wm.mistakes import Mistake

UNFINISHED = ".unfinished-"  # no loader looks for such names
# What a disk says when trying again won't help.
REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG),
}


class Place(ABC):
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

    def commit(self, key: str, data: bytes) -> None:
        """put_new, where finding exactly these bytes already there is as good (a retry after a lost answer)."""
        if not self.put_new(key, data) and self.get(key) != data:
            raise FileExistsError(f"{self.uri}/{key} exists with another content: two jobs wrote this run at once")


def at(uri: str) -> Place:
    """The place of that URI."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise Mistake(f"{uri} names no bucket: say s3://bucket/prefix")
        return Bucket(uri.rstrip("/"))
    if parts.scheme not in ("", "file"):
        raise Mistake(f"{uri}: no place of that kind; say a folder or s3://bucket/prefix")
    return Folder(parts.path if parts.scheme else uri)


class Folder(Place):
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
                os.link(unfinished, final)  # unlike rename, this refuses what exists
            except FileExistsError:
                return False
            return True

    def put(self, key: str, data: bytes) -> None:
        with self._beside(key, data) as (unfinished, final):
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
    def _writing(self, final: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            raise Mistake(
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
            raise Mistake(f"{error.filename} is a file: name a folder, or a new name for one") from None
        if not isinstance(error, FileNotFoundError):
            raise Mistake(f"can't read {error.filename} ({error.strerror}): get the rights, or name another folder")

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        return open(self.root / key, "rb")


class Bucket(Place):
    """A prefix in an S3 bucket, or in a store that speaks S3 (AWS_ENDPOINT_URL names it)."""

    def __init__(self, uri: str):
        import obstore
        from obstore.store import S3Store

        self.uri, self.obs = uri, obstore
        plain = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
        self.store = S3Store.from_url(
            uri,
            config={"endpoint": plain} if plain else None,
            client_options={"allow_http": plain.startswith("http://")},
            **({"credential_provider": _profile()} if "AWS_PROFILE" in os.environ else {}),
        )

    def get(self, key: str) -> bytes | None:
        try:
            with self._asking():
                return bytes(self.obs.get(self.store, key).bytes())
        except FileNotFoundError:
            return None

    def put_new(self, key: str, data: bytes) -> bool:
        try:
            with self._asking():
                # One request, never multipart: only a single put can be conditional.
                self.obs.put(self.store, key, data, mode="create", use_multipart=False)
        except FileExistsError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        with self._asking():
            self.obs.put(self.store, key, data)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found = {}
        with self._asking():
            for batch in self.obs.list(self.store, prefix=prefix or None):
                for entry in batch:
                    found[entry["path"]] = entry["size"]
        return dict(sorted(found.items()))

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._asking():
            self.obs.delete(self.store, key)

    def open(self, key: str) -> Any:
        with self._asking():
            return io.BufferedReader(_Parts(self.obs.open_reader(self.store, key)), 1)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """What the store answers as errors that the rest of us knows: its own are not OSErrors."""
        errors = self.obs.exceptions
        try:
            yield
        except (FileNotFoundError, errors.BaseError) as error:
            text, bucket = str(error), urlsplit(self.uri).netloc
            if "NoSuchBucket" in text:
                raise Mistake(
                    f"there is no bucket {bucket}: make it (`aws s3 mb s3://{bucket}`), or name another"
                ) from None
            if isinstance(error, errors.AlreadyExistsError):
                raise FileExistsError(text) from None
            if isinstance(error, FileNotFoundError):
                raise
            denied = isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError)
            if denied or "403 Forbidden" in text or METADATA in text:
                raise Mistake(
                    f"no access to the bucket {bucket}: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
                    " or AWS_PROFILE, or this node's role, and what they may do there"
                ) from None
            raise OSError(text.splitlines()[0]) from None


class _Parts(io.RawIOBase):
    """obstore's reader as a file of Python's own kind, which pyarrow asks for."""

    def __init__(self, reader: Any):
        self.reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.reader.seek(offset, whence)

    def tell(self) -> int:
        return self.reader.tell()

    def readinto(self, buffer: Any) -> int:
        data = self.reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


METADATA = "169.254.169.254"  # asked for the node's role where no other credentials are


def _profile() -> Any:
    """Credentials of a named profile, which obstore itself does not read (boto3 comes with the AWS tools)."""
    from obstore.auth.boto3 import Boto3CredentialProvider

    return Boto3CredentialProvider()
