"""The agent of V, M and C: a batch of episodes matches the paper's loop for each of them."""

import numpy as np
import pytest
import torch

from wm.models.agent import Agent, padded_size
from wm.models.controller import Controller
from wm.models.memory import MDNRNN, State
from wm.models.vision import VAE

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other

Z, H, A, STEPS = 6, 10, 2, 7
LENGTHS = [7, 3, 5, 1, 7]  # of five episodes
OWNER = [1, 0, 1, 2, 0]


def squash(raw):
    return torch.cat((torch.tanh(raw[..., :1]), torch.sigmoid(raw[..., 1:])), dim=-1)


@pytest.fixture(scope="module")
def vision():
    torch.manual_seed(1)
    return VAE(Z).eval()


def memory(**options):
    torch.manual_seed(2)
    return MDNRNN(z=Z, actions=A, hidden=H, mixtures=3, **options).eval()


def frames():
    return np.random.default_rng(3).integers(0, 256, (STEPS, len(LENGTHS), 64, 64, 3), np.uint8)


def thetas(controller):
    return np.random.default_rng(4).standard_normal((3, controller.size))


def drive(agent, seen, lengths=LENGTHS):
    """Actions (T, E, A), NaN after the end of an episode."""
    actions = np.full((STEPS, len(lengths), A), np.nan, np.float32)
    for step in range(STEPS):
        live = np.flatnonzero(np.array(lengths) > step)
        actions[step, live] = agent.act(seen[step, live], live)
    return actions


@torch.no_grad()
def paper_loop(vision, m, controller, theta, seen):
    """The paper's loop for one episode and one candidate, frame by frame."""
    state = State(torch.zeros(1, H), torch.zeros(1, H))
    actions = []
    for frame in seen:
        z, _ = vision.encode(torch.from_numpy(frame)[None])
        features = np.concatenate([x[0].numpy() for x in (z, *state)][: len(controller.inputs)]).astype(np.float64)
        raw = theta[: A * len(features)].reshape(A, -1) @ features + (theta[-A:] if controller.bias else 0)
        a = squash(torch.tensor(raw, dtype=torch.float32))
        state = m.advance(z, a[None], state, torch.zeros(1) if m.previous_done else None)
        actions.append(a.numpy())
    return np.array(actions)


@pytest.mark.parametrize("inputs", ["z", "zh", "zhc"])
@pytest.mark.parametrize("previous_done", [False, True])
def test_a_batch_matches_the_papers_loop_for_each_episode(vision, inputs, previous_done):
    m, controller = memory(previous_done=previous_done), Controller(inputs, Z, H, A, bias=not previous_done)
    theta, seen = thetas(controller), frames()
    actions = drive(Agent(vision, m, controller, theta, OWNER, squash), seen)
    for episode, length in enumerate(LENGTHS):
        expected = paper_loop(vision, m, controller, theta[OWNER[episode]], seen[:length, episode])
        np.testing.assert_allclose(actions[:length, episode], expected, atol=2e-5)
        assert np.isnan(actions[length:, episode]).all()
    assert np.nanstd(actions) > 0.1


def test_needs_no_memory_if_c_only_sees_z(vision):
    controller = Controller("z", Z, H, A, layer=4)
    theta, seen = thetas(controller), frames()
    alone = drive(Agent(vision, None, controller, theta, OWNER, squash), seen)
    watched = drive(Agent(vision, memory(), controller, theta, OWNER, squash), seen)
    np.testing.assert_array_equal(alone, watched)
    with pytest.raises(AssertionError, match="needs an M"):
        Agent(vision, None, Controller("zh", Z, H, A), theta, OWNER, squash)


@pytest.mark.parametrize(("latent", "noise"), [("mu", 0.0), ("z", 0.0), ("mu", 0.5), ("z", 0.5)])
def test_actions_are_a_function_of_the_arguments(vision, latent, noise):
    controller = Controller("zh", Z, H, A)
    theta, seen = thetas(controller), frames()

    def actions(seed):
        agent = Agent(vision, memory(), controller, theta, OWNER, squash, latent=latent, noise=[noise] * 5, seed=seed)
        return drive(agent, seen)

    np.testing.assert_array_equal(actions(1), actions(1))
    random = latent == "z" or noise > 0
    assert random == (not np.allclose(actions(1), actions(2), equal_nan=True, atol=1e-3))


def test_noise_does_not_depend_on_which_episodes_are_live(vision):
    controller = Controller("zh", Z, H, A)
    theta, seen = thetas(controller), frames()

    def actions(lengths):
        agent = Agent(vision, memory(), controller, theta, OWNER, squash, latent="z", noise=[0.3] * 5, seed=5)
        return drive(agent, seen, lengths)

    few, complete = actions([7, 1, 2, 1, 7]), actions([7] * 5)
    for episode in (0, 4):
        np.testing.assert_allclose(few[:, episode], complete[:, episode], atol=2e-5)


def test_z_has_vs_moments_and_noise_the_given_deviation(vision):
    controller, count = Controller("z", Z, 0, 1, bias=True), 400
    frame = frames()[0, :1].repeat(count, axis=0)
    mu, logvar = (x[0].detach().numpy() for x in vision.encode(torch.from_numpy(frame[:1])))
    agent = Agent(
        vision, None, controller, np.zeros(Z + 1), [0] * count, lambda raw: raw, latent="z", noise=[0.7] * count, seed=1
    )
    actions = agent.act(frame, np.arange(count))
    z = agent.z.numpy()
    np.testing.assert_allclose(z.mean(axis=0), mu, atol=5 * np.exp(0.5 * logvar).max() / np.sqrt(count))
    np.testing.assert_allclose(z.std(axis=0), np.exp(0.5 * logvar), rtol=0.2)
    assert actions.std() == pytest.approx(0.7, rel=0.2)


def test_exposes_z_actions_and_the_state_of_m(vision):
    m, controller = memory(), Controller("zh", Z, H, A)
    seen = frames()[0]
    agent = Agent(vision, m, controller, thetas(controller), OWNER, squash)
    assert (agent.state.h == 0).all()
    actions = agent.act(seen[[0, 2]], np.array([0, 2]))
    np.testing.assert_array_equal(agent.a[[0, 2]].numpy(), actions)
    torch.testing.assert_close(agent.z[2], vision.encode(torch.from_numpy(seen[2:3]))[0][0].detach(), atol=1e-5, rtol=0)
    zeros = State(torch.zeros(1, H), torch.zeros(1, H))
    torch.testing.assert_close(agent.state.h[2:3], m.advance(agent.z[2:3], agent.a[2:3], zeros).h, atol=1e-6, rtol=0)
    for episode in (1, 3, 4):  # episodes without a frame keep their state
        assert not agent.state.h[episode].any()
        assert not agent.z[episode].any()


def test_vs_half_precision_is_close_to_full_precision(vision):
    controller = Controller("zh", Z, H, A)
    theta, seen = thetas(controller) * 0.1, frames()
    full = drive(Agent(vision, memory(), controller, theta, OWNER, squash), seen)
    half = drive(Agent(vision, memory(), controller, theta, OWNER, squash, dtype=torch.bfloat16), seen)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.02)
    assert np.nanmax(np.abs(half - full)) > 0


def test_batches_are_padded_to_few_sizes():
    sizes = {padded_size(rows) for rows in range(1, 1025)}
    assert len(sizes) <= 18
    assert all(rows <= padded_size(rows) <= max(4, 2 * rows) for rows in range(1, 1025))
    assert all(padded_size(size) == size for size in sizes)
