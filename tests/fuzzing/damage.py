"""Damages files: bits, lengths, names, and values of JSON, with and without a new seal."""

import json
import math
import random
import re
import shutil
from pathlib import Path
from typing import Any

from wm.runs.reader import SEAL, UNSEALED, seal_of
from wm.runs.storage import sha256, to_json

# Values that no field expects.
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 41, 2**31, 2**53 + 1, 10**12, 10**30, -(10**12), 0.5, -0.0, 1e308, math.nan),
    *(math.inf, "", "x", "moon", "../x", "/etc/passwd", "q" * 300, "\0", "0" * 64, "gym:evilmod:x", [], {}, [[]]),
    *({"a": 1}, [None], ["x", 1]),
)


def damage_file(path: Path, others: list[Path], rng: random.Random, root: Path) -> str:
    """Damage one file of a run and return what was done. The file may be a hard link: it is replaced."""
    kinds = [flip, flip, cut, empty, extend, garble, delete, rename, swap, folder_instead]
    if path.suffix in (".json", ".jsonl"):
        kinds += [edit_json] * 12 + [digit] * 4
    kind = rng.choice(kinds)
    if kind in (rename, swap):
        return kind(path, others, rng)  # type: ignore[operator]
    if kind is edit_json:
        return edit_json(path, rng, path.relative_to(root).as_posix())
    return kind(path, rng)  # type: ignore[operator]


def _replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def flip(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    if not data:
        return "nothing to flip"
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    if rng.random() < 0.4:
        at = rng.randrange(min(len(data), 2_000))  # headers are short
    data[at] ^= 1 << bit
    _replace(path, bytes(data))
    return f"bit {bit} of byte {at} flipped"


def cut(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    length = rng.randrange(len(data) + 1)
    _replace(path, data[:length])
    return f"cut to {length} bytes"


def empty(path: Path, rng: random.Random) -> str:
    _replace(path, rng.choice([b"", b"\n", b"   "]))
    return "emptied"


def extend(path: Path, rng: random.Random) -> str:
    _replace(path, path.read_bytes() + rng.choice([b"\0", b"x", b"{}", b"\n\n", rng.randbytes(50)]))
    return "extended"


def garble(path: Path, rng: random.Random) -> str:
    garbage = rng.choice(
        [rng.randbytes(200), b"\xff\xfe", b"[" * 100_000, b"7", b"[]", b"null", b'"x"', b"{}", b'{"a":']
    )
    _replace(path, garbage)
    return f"replaced by {garbage[:20]!r}"


def delete(path: Path, rng: random.Random) -> str:
    path.unlink()
    return "deleted"


def folder_instead(path: Path, rng: random.Random) -> str:
    path.unlink()
    if rng.random() < 0.3:
        path.symlink_to(path.name)
        return "replaced by a link to itself"
    path.mkdir()
    return "replaced by a folder"


def rename(path: Path, others: list[Path], rng: random.Random) -> str:
    """Another number in its name, as a copy or in place of the file."""
    numbers = list(re.finditer(r"[0-9]+", path.name))
    if not numbers:
        return delete(path, rng)
    found = rng.choice(numbers)
    number = str(int(found[0]) + rng.choice([1, 2, 10, 99])).zfill(len(found[0]))
    if rng.random() < 0.1:
        number = rng.choice(["9999", "٣", "-1", "99999999999999999999"])
    other = path.with_name(path.name[: found.start()] + number + path.name[found.end() :])
    if other.exists():
        other.unlink()
    copied = rng.random() < 0.5
    (shutil.copyfile if copied else shutil.move)(path, other)
    return f"{'copied' if copied else 'moved'} to {other.name}"


def swap(path: Path, others: list[Path], rng: random.Random) -> str:
    """The content of another file of the same type."""
    same = [other for other in others if other.suffix == path.suffix and other != path and other.is_file()]
    if not same:
        return flip(path, rng)
    other = rng.choice(same)
    _replace(path, other.read_bytes())
    return f"replaced by {other.name}"


def digit(path: Path, rng: random.Random) -> str:
    """One digit changed, as by a typing error in an editor."""
    text = path.read_text()
    found = list(re.finditer("[0-9]", text))
    if not found:
        return flip(path, rng)
    at = rng.choice(found).start()
    new = rng.choice([one for one in "0123456789" if one != text[at]])
    _replace(path, (text[:at] + new + text[at + 1 :]).encode())
    return f"digit {at} changed to {new}"


def edit_json(path: Path, rng: random.Random, key: str) -> str:
    """One value replaced, removed, renamed or added; half of the time with a new seal."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError:
        return flip(path, rng)
    what = edit_value(rng.choice(rows) if rows else {}, rng)
    resealed = rng.random() < 0.5
    if resealed and rows and isinstance(rows[-1], dict):
        rows[-1].pop(SEAL, None)
        values = rows if path.suffix == ".jsonl" else rows[-1]
        rows[-1][SEAL] = seal_of(values, key) or "0" * 64
    lines = [json.dumps(row) + "\n" for row in rows]
    _replace(path, "".join(lines).encode() if path.suffix == ".jsonl" else to_json(rows[0]))
    return f"{what}{', with a new seal' if resealed else ''}"


def edit_value(values: Any, rng: random.Random) -> str:
    """Change one value somewhere in these, in place."""
    places = list(_places(values))
    if not places:
        return "nothing to edit"
    holder, key = rng.choice(places)
    where, kind = f"{key}", rng.choice(["set", "set", "set", "near", "remove", "rename", "add", "nest"])
    if kind == "near" and type(holder[key]) in (int, float):
        holder[key] = rng.choice([holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 10])
        return f"{where} is {holder[key]!r}"
    if kind == "remove":
        del holder[key]
        return f"{where} removed"
    if kind == "rename" and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
        return f"{where} renamed"
    if kind == "add" and isinstance(holder, dict):
        holder["surprise"] = rng.choice(STRANGE)
        return "a key added"
    if kind == "nest":
        deep: Any = 1
        for _ in range(rng.choice([3, 50, 500])):
            deep = [deep]
        holder[key] = deep
        return f"{where} nested"
    holder[key] = rng.choice(STRANGE)
    return f"{where} is {str(holder[key])[:30]!r}"


def _places(values: Any) -> Any:
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield values, key
        if isinstance(value, dict | list):
            yield from _places(value)


def damage_agent(data: bytes, rng: random.Random) -> tuple[bytes, str, bool]:
    """(the damaged file, what was done, whether it has a new seal: then it may be another agent)."""
    kind = rng.choice(
        ["flip", "flip", "header flip", "cut", "info", "info", "info", "info", "tensors", "tensors", "rest"]
    )
    length = int.from_bytes(data[:8], "little")
    if kind in ("flip", "header flip"):
        at = rng.randrange(len(data) if kind == "flip" else 8 + length)
        bit = rng.randrange(8)
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :], f"bit {bit} of byte {at} flipped", False
    if kind == "cut":
        at = rng.choice([0, 1, 7, 8, 20, 8 + length, rng.randrange(len(data))])
        return data[:at], f"cut to {at} bytes", False
    if kind == "rest":
        return rng.choice([b"", b"x" * 100, rng.randbytes(1_000), data + b"\0", b"\xff" * 8 + data[8:]]), kind, False
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    info = json.loads(header["__metadata__"]["info"])
    resealed = rng.random() < 0.6
    if kind == "info":
        what = edit_value(info, rng)
    elif rng.random() < 0.7:
        del header["__metadata__"]
        what = edit_value(header, rng)
        header["__metadata__"] = {}
    else:  # numbers that are no numbers
        at = rng.randrange(len(rest) // 8) * 8
        strange = rng.choice([b"\xff" * 8, b"\0" * 6 + b"\xf0\x7f", b"\0" * 8, rng.randbytes(8)])
        rest, what = rest[:at] + strange + rest[at + 8 :], f"number at {at} is {strange!r}"
    if not isinstance(header["__metadata__"], dict):
        header["__metadata__"] = {}
    info[SEAL] = UNSEALED if resealed else info.get(SEAL)
    header["__metadata__"]["info"] = json.dumps(info)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    made = len(text).to_bytes(8, "little") + text + rest
    if resealed:
        made = made.replace(UNSEALED.encode(), sha256(made).encode(), 1)
    return made, f"{kind}: {what}{', with a new seal' if resealed else ''}", resealed
