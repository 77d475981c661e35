import numpy as np
import pytest
import torch

from wm.agent import Agent
from wm.controller import Controller
from wm.memory import MDNRNN, State
from wm.shoves import HELD, REACH, Shoves, shoves
from wm.vision import VAE

Z, H, A = 6, 10, 3


def test_c_is_not_asked_while_a_shove_lasts_and_m_knows_what_was_done():
    torch.manual_seed(1)
    vision, memory, controller = (
        VAE(Z).eval(),
        MDNRNN(z=Z, actions=A, hidden=H, mixtures=3).eval(),
        Controller("zh", Z, H, A),
    )
    theta = np.random.default_rng(4).standard_normal((1, controller.size))
    seen = np.random.default_rng(3).integers(0, 256, (7, 2, 64, 64, 3), np.uint8)
    held = torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.0, 1.0]])
    shoved = Shoves(torch.tensor([[2], [2]]), torch.tensor([[5], [0]]), held)  # the second one is left alone

    def drive(given):
        agent = Agent(vision, memory, controller, theta, (0, 0), torch.tanh, shoves=given)
        return np.stack([agent.act(frames, np.arange(2)) for frames in seen]), agent

    (plain, _), (actions, agent) = drive(None), drive(shoved)
    np.testing.assert_array_equal(actions[:, 1], plain[:, 1])
    np.testing.assert_array_equal(actions[:2, 0], plain[:2, 0])
    np.testing.assert_allclose(actions[2:5, 0], np.tanh(held[:1].numpy()).repeat(3, axis=0), rtol=1e-6)
    assert np.abs(actions[5:, 0] - plain[5:, 0]).max() > 1e-4  # C drives on from what M remembers of it
    with torch.no_grad():
        state = State(torch.zeros(1, H), torch.zeros(1, H))
        for frame, action in zip(seen[:, 0], actions[:, 0], strict=True):
            z = vision.encode(torch.from_numpy(frame)[None])[0]
            state = memory.advance(z, torch.from_numpy(action)[None], state)
    torch.testing.assert_close(agent.state.h[:1], state.h, atol=1e-4, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_episodes_the_same_whoever_plays_them(share):
    seeds = list(range(1000))
    made, again = shoves(seeds, share, A, 1000), shoves(seeds[::-1], share, A, 1000)
    for one, other in ((made.first, again.first), (made.end, again.end), (made.raw, again.raw)):
        torch.testing.assert_close(one, other.flip(0), atol=0, rtol=0)
    lasting = (made.end - made.first)[made.end > 0]
    assert len(lasting) == pytest.approx(share * 1000, abs=50)
    assert all(HELD[0] <= length < HELD[1] for length in lasting)
    assert 50 <= made.first.min() < 100 < 500 < made.first.max() <= 600
    assert REACH * 0.9 < made.raw.abs().max() <= REACH
    assert made.raw.std(dim=0).min() > REACH / 2  # each number of an action
