"""The matrix product as a WebAssembly module with 128-bit SIMD, assembled here byte by byte.

So the page needs no compiler and nothing from elsewhere. The module imports a memory and exports one function,

    multiply(a, b, c, rows, inner, panels, stride)

which adds A B to C. A is (rows, inner), row after row. B is cut into panels of 16 columns, each stored as (inner, 16).
C has rows of `stride` bytes, at least 16 * panels floats. All are 32-bit floats; a, b and c are addresses.
Two rows of A are done at a time: with 8 sums, 4 parts of B and one number of A, all stays in 16 registers.
"""

from collections.abc import Iterable

PANEL = 16  # columns of B that lie side by side
LANES = 4  # floats in a vector

I32, V128, EMPTY = 0x7F, 0x7B, 0x40
BLOCK, LOOP, IF, END, BRANCH, BRANCH_IF = 0x02, 0x03, 0x04, 0x0B, 0x0C, 0x0D
GET, SET, CONST = 0x20, 0x21, 0x41
LESS, ADD, SUBTRACT, NOT_EQUAL, SHIFT = 0x49, 0x6A, 0x6B, 0x47, 0x74  # of 32-bit integers, unsigned
LOAD, SPLAT, STORE, MULTIPLY, SUM = 0x00, 0x09, 0x0B, 0xE6, 0xE4  # of vectors

PARAMETERS = ("a", "b", "c", "rows", "inner", "panels", "stride")
INTEGERS = ("left", "row", "first", "second", "panel", "out", "out2")
VECTORS = (*(f"sum{n}" for n in range(8)), *(f"part{n}" for n in range(4)), "number")
INDEX = {name: at for at, name in enumerate((*PARAMETERS, *INTEGERS, *VECTORS))}


def module() -> bytes:
    """The whole module; about 500 bytes."""
    kind = bytes([0x60, len(PARAMETERS), *[I32] * len(PARAMETERS), 0])
    memory = _name("env") + _name("memory") + bytes([0x02, 0x00, 1])  # at least one page
    variables = bytes([2, len(INTEGERS), I32, len(VECTORS), V128])
    body = variables + _multiply() + bytes([END])
    sections = (
        (1, [kind]),
        (2, [memory]),
        (3, [bytes([0])]),
        (7, [_name("multiply") + bytes([0x00, 0])]),
        (10, [_unsigned(len(body)) + body]),
    )
    return b"\0asm\x01\0\0\0" + b"".join(_section(number, entries) for number, entries in sections)


def _multiply() -> bytes:
    return b"".join(
        [
            _set("row", _get("inner"), _const(2), SHIFT),  # bytes in a row of A
            bytes([LOOP, EMPTY]),  # over panels
            _set("left", _get("rows")),
            _set("first", _get("a")),
            _set("out", _get("c")),
            bytes([BLOCK, EMPTY, LOOP, EMPTY]),  # over pairs of rows
            _get("left") + _const(2) + bytes([LESS, BRANCH_IF, 1]),
            _set("second", _get("first"), _get("row"), ADD),
            _set("out2", _get("out"), _get("stride"), ADD),
            _rows(("first", "out"), ("second", "out2")),
            _set("first", _get("second")),
            _set("out", _get("out2"), _get("stride"), ADD),
            _set("left", _get("left"), _const(2), SUBTRACT),
            bytes([BRANCH, 0, END, END]),
            _get("left") + bytes([IF, EMPTY]),
            _rows(("first", "out")),
            bytes([END]),
            _set("b", _get("b"), _get("row"), _const(4), SHIFT, ADD),
            _set("c", _get("c"), _const(4 * PANEL), ADD),
            _set("panels", _get("panels"), _const(1), SUBTRACT),
            _get("panels") + bytes([BRANCH_IF, 0, END]),
        ]
    )


def _rows(*rows: tuple[str, str]) -> bytes:
    """One or two rows of A, by their addresses, times the panel, added to their rows of C."""
    parts = PANEL // LANES
    code = [_set("panel", _get("b"))]
    code += [
        _set(f"sum{parts * row + part}", _get(out), _vector(LOAD, 16 * part))
        for row, (_, out) in enumerate(rows)
        for part in range(parts)
    ]
    code.append(bytes([LOOP, EMPTY]))  # over the inner dimension, until the panel ends
    code += [_set(f"part{part}", _get("panel"), _vector(LOAD, 16 * part)) for part in range(parts)]
    for row, (at, _) in enumerate(rows):
        code.append(_set("number", _get(at), _vector(SPLAT, 0)))
        for part in range(parts):
            name = f"sum{parts * row + part}"
            product = _get("number") + _get(f"part{part}") + _vector(MULTIPLY)
            code.append(_set(name, _get(name), product, _vector(SUM)))
        code.append(_set(at, _get(at), _const(4), ADD))
    code.append(_set("panel", _get("panel"), _const(4 * PANEL), ADD))
    end = _get("b") + _get("row") + _const(4) + bytes([SHIFT, ADD])
    code.append(_get("panel") + end + bytes([NOT_EQUAL, BRANCH_IF, 0, END]))
    code += [
        _get(out) + _get(f"sum{parts * row + part}") + _vector(STORE, 16 * part)
        for row, (_, out) in enumerate(rows)
        for part in range(parts)
    ]
    return b"".join(code)


def _get(name: str) -> bytes:
    return bytes([GET, INDEX[name]])


def _set(name: str, *code: bytes | int) -> bytes:
    return b"".join(bytes([part]) if isinstance(part, int) else part for part in code) + bytes([SET, INDEX[name]])


def _const(value: int) -> bytes:
    assert 0 <= value < 64 or value == 64, value
    return bytes([CONST]) + (bytes([value]) if value < 64 else bytes([0xC0, 0x00]))  # signed LEB128


def _vector(operation: int, offset: int | None = None) -> bytes:
    """A vector instruction; loads and stores have an alignment, of 4 bytes here, and an offset."""
    reach = b"" if offset is None else bytes([2]) + _unsigned(offset)
    return bytes([0xFD]) + _unsigned(operation) + reach


def _unsigned(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first."""
    data = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        data.append(low | 0x80 if value else low)
        if not value:
            return bytes(data)


def _name(text: str) -> bytes:
    return _unsigned(len(text)) + text.encode()


def _section(number: int, entries: Iterable[bytes]) -> bytes:
    entries = list(entries)
    data = _unsigned(len(entries)) + b"".join(entries)
    return bytes([number]) + _unsigned(len(data)) + data
