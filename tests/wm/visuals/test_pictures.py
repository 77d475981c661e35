"""Pictures of V and M: their sizes, determinism, and short data."""

import cv2
import numpy as np
import pytest
import torch

from wm.models.memory import MDNRNN
from wm.models.vision import VAE
from wm.runs.storage import Folder
from wm.training.sequences import Sequences
from wm.visuals.drawing import Curve, panel, ticks
from wm.visuals.pictures import (
    EncodedFrames,
    _most_eventful,
    dream_along,
    filmstrip,
    memory_pictures,
    reconstructions,
    traversal,
    vision_pictures,
)

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other

Z, A = 6, 3


@pytest.fixture(scope="module")
def vision():
    torch.manual_seed(0)
    return VAE(Z).eval()


def a_memory(**heads):
    torch.manual_seed(0)
    return MDNRNN(z=Z, actions=A, hidden=16, **heads).eval()


def frames(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=generator)


def sequences(*lengths, steps):
    """Held-out sequences of these lengths, padded to `steps`, each with an end at its last step."""
    g = torch.Generator().manual_seed(2)
    batch, t, ends = len(lengths), torch.arange(steps)[None], torch.tensor(lengths)[:, None]
    mu, logvar = torch.randn(batch, steps, Z, generator=g), torch.full((batch, steps, Z), -3.0)
    mu[(t >= ends).expand(batch, steps)] = torch.nan  # to detect any use of the padding
    a, reward = torch.rand(batch, steps, A, generator=g), torch.rand(batch, steps, generator=g)
    return Sequences(mu, logvar, a, reward, (t == ends - 1).float(), (t < ends).float(), (t < ends - 1).float())


def opened(storage, keys):
    """The decoded pictures, neither blank nor full."""
    pictures = [cv2.imdecode(np.frombuffer(storage.get(key), np.uint8), cv2.IMREAD_COLOR) for key in keys]
    for picture in pictures:
        assert picture.shape[2] == 3
        assert 200 < picture.shape[1] < 1500
        paper = (picture == 255).all(axis=2).mean()
        assert 0.02 < paper < 0.98
        assert (picture[:8] == 255).all()  # the margin
    return pictures


def test_pictures_of_v(vision, tmp_path):
    storage = Folder(str(tmp_path))
    keys = vision_pictures(vision, frames(40), storage, "vision/pictures")
    assert keys == ["vision/pictures/reconstructions.png", "vision/pictures/traversal.png"]
    reconstructions, traversal = opened(storage, keys)
    assert reconstructions.shape[1] > 8 * 128  # eight columns, two sections of two rows
    assert reconstructions.shape[0] > 4 * 128
    assert traversal.shape[1] > 7 * 128  # -3 to 3
    assert traversal.shape[0] > (1 + Z) * 128  # the frame, then each dimension of z


def test_reconstructions_show_frames_above_what_v_decodes(vision):
    encoded = EncodedFrames(vision, frames(40))
    easy, hard = reconstructions(encoded).rows
    assert [len(row.cells) for row in (easy, hard)] == [8, 8]
    for cell in (*easy.cells, *hard.cells):
        frame, decoded = cell.frames
        [index] = [i for i, x in enumerate(encoded.frames.numpy()) if np.array_equal(x, frame)]
        assert np.array_equal(decoded, encoded.decoded[index].numpy())
        assert cell.caption == f"error {encoded.error[index]:.1f}"
    errors = [float(cell.caption.split()[1]) for cell in easy.cells]
    assert errors == sorted(errors)


def test_a_traversal_marks_the_value_nearest_to_the_frame_s_own(vision):
    encoded = EncodedFrames(vision, frames(40))
    first, *rows = traversal(vision, encoded).rows
    assert [cell.caption for cell in first.cells] == ["frame", "V"]
    frame = first.cells[0].frames[0]
    [typical] = [i for i, x in enumerate(encoded.frames.numpy()) if np.array_equal(x, frame)]
    assert len(rows) == Z
    for row in rows:
        assert [cell.caption for cell in row.cells] == ["-3", "-2", "-1", "0", "+1", "+2", "+3"]
        [marked] = [cell for cell in row.cells if cell.marked]
        own = float(encoded.mu[typical, int(row.label.split(",")[0].removeprefix("z"))])
        assert float(marked.caption) == max(-3, min(3, round(own)))


def test_a_filmstrip_has_a_row_for_each_temperature(vision):
    picture = filmstrip(a_memory(), vision, sequences(120, 60, steps=120), (0.1, 1.3))
    assert [row.label for row in picture.rows] == ["real, decoded by V", "dream, tau 0.1", "dream, tau 1.3"]
    assert [cell.caption for cell in picture.rows[1].cells] == ["start", *(f"+{8 * n} steps" for n in range(1, 9))]
    starts = [row.cells[0].frames[0] for row in picture.rows]
    assert np.array_equal(starts[1], starts[2])  # all dreams start from the same z
    assert not np.array_equal(picture.rows[1].cells[8].frames[0], picture.rows[2].cells[8].frames[0])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_frames_are_enough(vision, tmp_path, count):
    storage = Folder(str(tmp_path))
    opened(storage, vision_pictures(vision, frames(count), storage, "p"))


def test_pictures_of_m(vision, tmp_path):
    storage = Folder(str(tmp_path))
    memory = a_memory(reward=True, done=True, previous_done=True)
    keys = memory_pictures(memory, vision, sequences(120, 60, steps=120), storage, "memory/pictures")
    assert keys == ["memory/pictures/filmstrip.png", "memory/pictures/predictions.png"]
    filmstrip, predictions = opened(storage, keys)
    assert filmstrip.shape[0] > 5 * 128  # the real frames and four temperatures
    assert filmstrip.shape[1] > 9 * 128
    assert predictions.shape[0] > 7 * 120  # five dimensions of z, reward and done


@pytest.mark.parametrize("lengths", [(16, 16), (16, 3), (2,), (1, 1)])
def test_short_sequences_are_enough(vision, tmp_path, lengths):
    storage = Folder(str(tmp_path))
    held = sequences(*lengths, steps=16)
    opened(storage, memory_pictures(a_memory(reward=True), vision, held, storage, "p", taus=(0.5,)))


def test_the_same_models_give_the_same_pictures(vision, tmp_path):
    storage, memory, held = Folder(str(tmp_path)), a_memory(reward=True), sequences(50, 40, steps=50)
    for folder in "ab":
        torch.rand(1)  # numbers drawn elsewhere must not matter
        vision_pictures(vision, frames(10), storage, folder)
        memory_pictures(memory, vision, held, storage, folder)
    names = [key.removeprefix("a/") for key in storage.sizes() if key.startswith("a/") and key.endswith(".png")]
    assert len(names) == 4
    assert all(storage.get(f"a/{name}") == storage.get(f"b/{name}") for name in names)


def test_the_segment_shown_contains_events_and_no_padding():
    held = sequences(60, 80, 30, steps=100)
    held.reward[:] = 0
    held.done[:] = 0
    held.reward[1, 45] = 1
    held.reward[2, 50] = 9  # in the padding
    row, begin, end = _most_eventful(held, 40)
    assert (row, end - begin) == (1, 40)
    assert begin <= 45 < end <= 80
    assert _most_eventful(held, 500) == (1, 0, 80)


def test_dreams_start_from_the_real_z_and_vary_less_at_a_low_temperature():
    memory, held = a_memory(), sequences(80, steps=80)
    z, a = held.mu[0], held.a[0]
    dreams = dream_along(memory, z, a, 20, taus=(0.1, 1.0))  # (2, 60, Z)
    assert dreams.shape == (2, 60, Z)
    assert torch.equal(dreams[:, 0], z[20].expand(2, -1))
    cold, warm = (dream[1:].std() for dream in dreams)
    assert cold < 0.7 * warm


def test_a_dream_depends_on_the_actions_but_not_on_later_frames():
    memory, held = a_memory(), sequences(40, steps=40)
    z, a = held.mu[0], held.a[0]
    dream = dream_along(memory, z, a, 10, taus=(1.0,))
    later = z.clone()
    later[11:] += 1
    assert torch.equal(dream, dream_along(memory, later, a, 10, taus=(1.0,)))
    turned = a.clone()
    turned[10:] = -1
    assert not torch.equal(dream, dream_along(memory, z, turned, 10, taus=(1.0,)))


def test_axes():
    np.testing.assert_allclose(ticks(-0.31, 0.52, 4), [-0.2, 0, 0.2, 0.4])
    assert [f"{value:g}" for value in ticks(-0.4, 0.4, 4)] == ["-0.4", "-0.2", "0", "0.2", "0.4"]
    assert (panel([Curve(np.zeros(5)), Curve(np.zeros(5))], "flat") < 255).any()
    assert (panel([Curve(np.empty(0))], "nothing") < 255).any()
