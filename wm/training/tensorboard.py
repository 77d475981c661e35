"""Metrics and pictures as TensorBoard event files.

A file of metrics is a pure function of the rows, so it can be written again at any time.
"""

import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams


def event_file(stage: str, rows: Sequence[Mapping[str, float]]) -> bytes:
    """The content of one events.out.tfevents file; each row has "step", "time" and values.

    A tag is the name of the stage and the value, unless the name has a slash: "eval/mean_reward" stays as it is.
    """
    file = io.BytesIO()
    start = rows[0]["time"] if rows else 0.0
    _write(file, Event(wall_time=start, file_version="brain.Event:2"))
    for row in rows:
        values = [
            Summary.Value(tag=name if "/" in name else f"{stage}/{name}", simple_value=value)
            for name, value in row.items()
            if name not in ("step", "time")
        ]
        _write(file, Event(wall_time=row["time"], step=int(row["step"]), summary=Summary(value=values)))
    return file.getvalue()


def picture_file(pictures: Mapping[str, tuple[bytes, int, int]]) -> bytes:
    """An event file of images: tag -> (PNG or GIF, width, height)."""
    file, now = io.BytesIO(), time.time()
    _write(file, Event(wall_time=now, file_version="brain.Event:2"))
    for tag, (data, width, height) in pictures.items():
        shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        _write(file, Event(wall_time=now, step=0, summary=Summary(value=[Summary.Value(tag=tag, image=shown)])))
    return file.getvalue()


def hparams_file(values: Mapping[str, Any], metrics: Mapping[str, float]) -> bytes:
    """An event file for TensorBoard's HParams: the fields of one trial and what came of it."""
    file = io.BytesIO()
    _write(file, Event(wall_time=0.0, file_version="brain.Event:2"))
    for part in hparams(dict(values), dict(metrics)):
        _write(file, Event(wall_time=0.0, step=0, summary=part))
    rows = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    _write(file, Event(wall_time=0.0, step=0, summary=Summary(value=rows)))
    return file.getvalue()


def _write(file: io.BytesIO, event: Event) -> None:
    """Write a TFRecord: length, checksum, data, checksum."""
    data = event.SerializeToString()
    length = len(data).to_bytes(8, "little")
    file.write(length + _checksum(length) + data + _checksum(data))


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")
