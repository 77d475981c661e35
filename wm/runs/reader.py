"""The one reader of everything that a run or an agent file holds.

JSON files are sealed: they contain the SHA-256 of their key and the rest of their content, so that no changed value is
believed, nor a file under another name. A seal detects damage; it does not prove who wrote a file. After the seal the
reader checks a schema, and it raises one error that names the file, the problem and a cure.
"""

import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from wm.config.schema import FORMAT
from wm.errors import UserError
from wm.runs.storage import Storage, sha256, to_json
from wm.schemas import Schema, Wrong

SEAL = "seal"  # the SHA-256 of the file's key and all other values of a JSON object
UNSEALED = "0" * 64  # takes the place of the seal of a tensor file while its bytes are hashed
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LARGEST_HEADER = 100_000_000  # bytes, as in the safetensors library


class Damaged(UserError):
    """A file that can't be believed, with the cure."""

    def __init__(self, file: str, problem: str, cure: str):
        super().__init__(f"{file} is damaged ({problem}): {cure}")


# JSON objects


def sealed(values: Mapping[str, Any], key: str) -> bytes:
    """The values as a JSON file with a seal, for this key of a storage."""
    return to_json({**values, SEAL: seal_of(values, key)})


def unsealed(data: bytes, storage: Storage, key: str, schema: Schema, cure: str) -> dict[str, Any]:
    """The values in a file that `sealed` made; raises `Damaged`."""
    file = f"{storage.uri}/{key}"
    values = parsed(data, file, cure)
    if not isinstance(values, dict):
        raise Damaged(file, "it holds no JSON object", cure)
    seal = values.pop(SEAL, None)
    if seal is None:
        raise Damaged(file, "its seal is missing", cure)
    if seal != seal_of(values, key):
        raise Damaged(file, "its content does not match its seal", cure)
    checked(values, file, schema, cure)
    return values


def read(storage: Storage, key: str, schema: Schema, cure: str) -> dict[str, Any] | None:
    """The values in a sealed file, or None if it does not exist."""
    data = storage.get(key)
    return None if data is None else unsealed(data, storage, key, schema, cure)


def parsed(data: bytes, file: str, cure: str) -> Any:
    if not data.strip():
        raise Damaged(file, "it is empty", cure)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged(file, "it is not valid JSON", cure) from None


def checked(values: Any, file: str, schema: Schema, cure: str) -> None:
    try:
        schema(values, "")
    except Wrong as wrong:
        raise Damaged(file, str(wrong), cure) from None


def check_format(version: Any, file: str, what: str) -> None:
    """Files of other versions are not damaged: they have a cure of their own."""
    if version != FORMAT and type(version) is int and 0 < version < 1000:
        raise UserError(
            f"{file} has format {version}, this version reads format {FORMAT}: use the version of this project that"
            f" made it, or {what}"
        )


def seal_of(values: Any, key: str) -> str:
    try:
        return sha256(to_json([key, values]))
    except (ValueError, RecursionError):  # JSON that Python reads but does not write
        return ""


# Curves: one JSON object in each line, the seal in the last one


def sealed_rows(rows: Sequence[Mapping[str, Any]], key: str) -> bytes:
    if not rows:
        return b""
    *others, last = rows
    lines = [*others, {**last, SEAL: seal_of(list(rows), key)}]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def unsealed_rows(data: bytes, storage: Storage, key: str, schema: Schema, cure: str) -> list[dict[str, Any]]:
    file = f"{storage.uri}/{key}"
    rows = [parsed(line, file, cure) for line in data.split(b"\n")[:-1]]
    if not all(isinstance(row, dict) for row in rows) or (data and not data.endswith(b"\n")):
        raise Damaged(file, "it has an incomplete line", cure)
    if rows and rows[-1].pop(SEAL, None) != seal_of(rows, key):
        raise Damaged(file, "its content does not match its seal", cure)
    for row in rows:
        checked(row, file, schema, cure)
    return rows


# Tensors


def pack(tensors: Mapping[str, Tensor], info: Mapping[str, Any], seal: bool = False) -> bytes:
    """Tensors and JSON metadata as one safetensors file, which can't contain code.

    Files of a run have their hash in their name or in a manifest. Agent files are sealed instead.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    values = {**info, SEAL: UNSEALED} if seal else info
    # One value only, since the library writes several in any order.
    data = save_tensors(contiguous, metadata={"info": json.dumps(values, sort_keys=True)})
    return data.replace(UNSEALED.encode(), sha256(data).encode(), 1) if seal else data


def unpack(
    data: bytes, file: str = "the file of tensors", cure: str = "restore it"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file whose hash the caller has checked."""
    info = _info(data, file, cure)
    info.pop(SEAL, None)
    return _tensors(data, file, cure), info


def verify_seal(data: bytes, file: str, cure: str) -> None:
    """Raise `Damaged` unless the header and the tensors are those that were sealed."""
    seal = _info(data, file, cure).get(SEAL)
    if not isinstance(seal, str):
        raise Damaged(file, "its seal is missing", cure)
    if not re.fullmatch("[0-9a-f]{64}", seal) or sha256(data.replace(seal.encode(), UNSEALED.encode(), 1)) != seal:
        raise Damaged(file, "its content does not match its seal", cure)


def _info(data: bytes, file: str, cure: str) -> dict[str, Any]:
    """The JSON metadata of a safetensors file."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > min(LARGEST_HEADER, len(data) - 8):
            raise ValueError
        info = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["info"])
    except (ValueError, RecursionError, KeyError, TypeError, struct.error):
        raise Damaged(file, "it is no complete safetensors file", cure) from None
    if not isinstance(info, dict):
        raise Damaged(file, "its header is incomplete", cure)
    return info


def _tensors(data: bytes, file: str, cure: str) -> dict[str, Tensor]:
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Damaged(file, f"its tensors can't be read: {_first_line(error)}", cure) from None


def check_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], file: str, cure: str) -> None:
    """Raise `Damaged` unless there are tensors with these names and shapes, with finite numbers."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise Damaged(file, f"the tensor {name} is missing", cure)
        found = tensors[name]
        if tuple(found.shape) != tuple(shape):
            raise Damaged(file, f"{name} has the shape {list(found.shape)} instead of {list(shape)}", cure)
    check_finite(tensors, file, cure)
    unknown = sorted(tensors.keys() - shapes.keys())
    if unknown:
        raise Damaged(file, f"the tensor {unknown[0][:40]} is unknown", cure)


def check_finite(tensors: Mapping[str, Tensor], file: str, cure: str) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS or not bool(torch.isfinite(tensor).all()):
            raise Damaged(file, f"{name[:80]} has values that are not finite numbers", cure)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
