"""Dreams of a whole population: they match M step by step, whatever the batch, and follow the rules."""

import math
import pickle

import numpy as np
import pytest
import torch

from wm.dream.population import Dream
from wm.dream.rules import Rules
from wm.dream.starts import Starts
from wm.dream.world import World
from wm.errors import UserError
from wm.models.controller import Controller
from wm.models.memory import MDNRNN, State, sample

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other

Z, H, A = 5, 12, 2
HEADS = {"reward": True, "done": True}


def squash(raw):
    return torch.cat((torch.tanh(raw[..., :1]), torch.sigmoid(raw[..., 1:])), dim=-1)


def memory(done: float | None = None, hidden: int = H, **options) -> MDNRNN:
    """An M with large weights, so that its predictions depend on the past; `done` fixes its done logit."""
    torch.manual_seed(1)
    m = MDNRNN(z=Z, actions=A, hidden=hidden, mixtures=3, **(HEADS | options)).eval()
    with torch.no_grad():
        m.heads.weight *= 4
        m.gates.weight *= 2
        if done is not None:
            row = 3 * 3 * Z + int(m.outputs[-3])  # after the mixture and the reward
            m.heads.weight[row], m.heads.bias[row] = 0, done
    return m


def starts(deviation: float = 0.5) -> Starts:
    mu = np.random.default_rng(2).standard_normal((4, Z))
    return Starts(mu, np.full((4, Z), 2 * np.log(deviation)))


def dream(m: MDNRNN, rules: Rules, inputs="zh", start=None) -> Dream:
    controller = Controller(inputs, Z, m.hidden, A, bias=inputs != "zhc")
    return Dream(World(m, start or starts(), rules, squash), controller)


def thetas(d: Dream, population: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((population, d.controller.size))


@torch.no_grad()
def reference_rollout(d: Dream, theta: np.ndarray, seed: int, episode: int) -> tuple[float, int]:
    """One episode of one candidate, step by step, with M's own methods."""
    m, rules, controller = d.world.memory, d.world.rules, d.controller
    rng = np.random.default_rng((seed, episode))
    z, *state = torch.from_numpy(d.world.begin(rng))[None].split((Z, m.hidden, m.hidden), dim=1)
    total, steps = 0.0, 0
    while steps < rules.steps:
        if steps % 16 == 0:
            noise = torch.from_numpy(d.world.noise(rng, 16))
        uniform, chance, normal = noise[steps % 16, None].split((Z, 1, Z), dim=1)
        a = squash(controller.act(controller.tensor(theta), controller.features(z, *state)[None])[0])
        state = m.advance(z, a, State(*state), torch.zeros(1) if m.previous_done else None)
        expected = m.predict(state.h)
        z = sample(expected, rules.tau, uniform, normal)
        total += expected.reward.item() if rules.reward == "head" else 1
        steps += 1
        if rules.lap and total + rules.step_price * steps >= rules.lap:
            break
        if rules.done == "threshold" and expected.done.item() > 0:
            break
        if rules.done == "sample" and chance.item() < torch.sigmoid(expected.done).item():
            break
    return total, steps


@pytest.mark.parametrize(
    ("inputs", "rules", "options"),
    [
        ("zh", Rules(steps=40), {}),
        ("zh", Rules(steps=33, reward="head", done="never"), {"done": False}),
        ("zhc", Rules(steps=40, tau=1.15, done="sample"), {"previous_done": True}),
        ("z", Rules(steps=40, tau=1.3, reward="head", done="sample"), {"next_action": True}),
        ("zhc", Rules(steps=40, tau=0.5, reward="head"), {}),
        ("zh", Rules(steps=40, reward="head", done="never", lap=3.0, step_price=0.1), {}),
    ],
)
def test_a_batch_of_dreams_matches_m_step_by_step(inputs, rules, options):
    d = dream(memory(**options), rules, inputs)
    theta = thetas(d, 5)
    returns, lengths = d.rollout(theta, 7, 4)
    assert returns.shape == lengths.shape == (5, 4)
    for candidate in range(5):
        for episode in range(4):
            total, steps = reference_rollout(d, theta[candidate], 7, episode)
            assert lengths[candidate, episode] == steps
            assert returns[candidate, episode] == pytest.approx(total, rel=1e-3, abs=1e-3)
    if rules.done != "never" or rules.lap:
        assert len(np.unique(lengths)) > 2, "the episodes end too much alike to test anything"
        assert lengths.min() < rules.steps
    if rules.reward == "head":
        assert len(np.unique(returns)) == returns.size


def test_ended_dreams_leave_the_batch_and_no_result_changes():
    m = memory()
    with torch.no_grad():
        m.heads.weight[-1] *= 8  # done depends strongly on the dream
        m.heads.bias[-1] -= 6
    rules = Rules(steps=400, done="sample", reward="head")
    d = dream(m, rules)
    theta = thetas(d, 16)
    returns, lengths = d.rollout(theta, 5, 8)
    sizes = {size for size, _ in d.batches}
    assert len(sizes) >= 4, sizes
    assert max(sizes) == 128
    stays = dream(m, rules)
    stays._size = lambda rows: 128  # no dream leaves the batch
    same_returns, same_lengths = stays.rollout(theta, 5, 8)
    assert len(stays.batches) == 1
    np.testing.assert_array_equal(same_lengths, lengths)
    np.testing.assert_allclose(same_returns, returns, rtol=1e-4, atol=1e-3)
    assert lengths.min() < 16
    assert lengths.max() > 64
    assert max(len(set(each)) for each in lengths.T) > 4  # the same noise, but candidates end at different steps


def test_results_do_not_depend_on_the_other_candidates_and_episodes():
    rules = Rules(steps=60, done="sample", reward="head")
    d = dream(memory(done=-3), rules)
    theta = thetas(d, 6)
    returns, lengths = d.rollout(theta, 5, 4)
    for candidate in range(6):
        alone, steps = dream(memory(done=-3), rules).rollout(theta[candidate : candidate + 1], 5, 4)
        np.testing.assert_array_equal(steps[0], lengths[candidate])
        np.testing.assert_allclose(alone[0], returns[candidate], rtol=1e-4, atol=1e-3)
    some, steps = d.rollout(theta, 5, [2, 3])
    np.testing.assert_array_equal(steps, lengths[:, 2:])
    np.testing.assert_allclose(some, returns[:, 2:], rtol=1e-4, atol=1e-3)


def test_results_are_a_function_of_the_seed():
    rules = Rules(steps=50, done="sample", reward="head", tau=1.5)
    d = dream(memory(), rules)
    theta = thetas(d, 7)
    first = d.rollout(theta, 5, 3)
    other = d.rollout(theta, 6, 3)
    for again in (d.rollout(theta, 5, 3), dream(memory(), rules).rollout(theta, 5, 3)):
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_all_candidates_get_the_same_noise():
    d = dream(memory(), Rules(steps=30, done="never", reward="head"))
    theta = np.repeat(thetas(d, 1), 3, axis=0)
    returns, _ = d.rollout(theta, 1, 5)
    np.testing.assert_array_equal(returns[0], returns[1])
    np.testing.assert_array_equal(returns[0], returns[2])
    assert len(np.unique(returns[0])) == 5


@pytest.mark.parametrize("rule", ["threshold", "sample"])
def test_done_ends_an_episode_and_the_step_counts(rule):
    returns, lengths = dream(memory(done=20.0), Rules(steps=50, done=rule)).rollout(np.zeros((2, 36)), 1, 3)
    np.testing.assert_array_equal(lengths, 1)
    np.testing.assert_array_equal(returns, 1)


@pytest.mark.parametrize("steps", [1, 15, 16, 17, 50])
def test_a_dream_ends_at_the_maximum_of_steps(steps):
    d = dream(memory(done=-20.0), Rules(steps=steps))
    returns, lengths = d.rollout(thetas(d, 2), 1, 3)
    np.testing.assert_array_equal(lengths, steps)
    np.testing.assert_array_equal(returns, steps)


def test_sampled_ends_have_their_probability():
    d = dream(memory(done=0.0), Rules(steps=100, done="sample"))
    _, lengths = d.rollout(thetas(d, 1), 1, 2000)
    assert lengths.mean() == pytest.approx(2, abs=0.15)  # geometric, 1/2
    assert (lengths == 1).mean() == pytest.approx(0.5, abs=0.05)


def test_sampled_ends_are_corrected_for_their_weight_in_training():
    d = dream(memory(done=math.log(10)), Rules(steps=100, done="sample", done_weight=10.0))
    _, lengths = d.rollout(thetas(d, 1), 1, 2000)
    assert lengths.mean() == pytest.approx(2, abs=0.15)


def test_a_low_temperature_makes_dreams_deterministic():
    def spread(tau):
        one = Starts(np.ones((1, Z)), np.full((1, Z), -60))
        d = dream(memory(), Rules(steps=20, tau=tau, done="never", reward="head"), start=one)
        return d.rollout(thetas(d, 1), 1, 50)[0].std()

    assert spread(1e-9) < 1e-2
    assert spread(1.0) > 20 * spread(1e-9) + 0.1


def test_dreams_start_from_stored_frames():
    world = dream(memory(), Rules(steps=1), start=starts(1e-6)).world
    begun = [world.begin(np.random.default_rng((1, episode))) for episode in range(200)]
    drawn = {tuple(state[:Z].round(3)) for state in begun}
    assert not any(state[Z:].any() for state in begun)  # a first frame has no history
    assert drawn == {tuple(mu.round(3)) for mu in world.starts.mu}
    wide = dream(memory(), Rules(steps=1), start=starts(2.0)).world
    z = np.array([wide.begin(np.random.default_rng(episode))[:Z] for episode in range(2000)])
    distance = (z[:, None] - wide.starts.mu).std()
    assert distance == pytest.approx(np.sqrt(4 + 2 * wide.starts.mu.var(axis=0).mean()), rel=0.2)


def test_a_dream_that_starts_within_an_episode_has_ms_state_at_that_frame():
    m, rng = memory(), np.random.default_rng(4)
    mu, states = rng.standard_normal((3, Z)), rng.standard_normal((3, 2 * H))
    within = Starts(mu, np.full((3, Z), -60), states)
    d = dream(m, Rules(steps=24, done="never", reward="head"), inputs="zhc", start=within)
    state = d.world.begin(np.random.default_rng(1))
    start = int(np.abs(state[:Z] - mu).sum(axis=1).argmin())
    np.testing.assert_allclose(state, np.concatenate((mu[start], states[start])), rtol=1e-5, atol=1e-5)
    theta = thetas(d, 2)
    returns, _ = d.rollout(theta, 5, 4)
    expected = [[reference_rollout(d, one, 5, episode)[0] for episode in range(4)] for one in theta]
    np.testing.assert_allclose(returns, expected, rtol=1e-3, atol=1e-3)


def test_a_candidate_with_nan_weights_does_not_affect_others():
    d = dream(memory(), Rules(steps=40, reward="head"))
    theta = thetas(d, 3)
    whole, _ = d.rollout(theta, 1, 4)
    theta[1] = np.nan
    broken, _ = d.rollout(theta, 1, 4)
    assert np.isnan(broken[1]).all()
    np.testing.assert_array_equal(broken[[0, 2]], whole[[0, 2]])


def test_half_precision_products_are_close():
    m, rules = memory(hidden=32), Rules(steps=4, done="never", reward="head", tau=1e-6)
    controller = Controller("zh", Z, 32, A)
    theta = np.random.default_rng(1).standard_normal((2, controller.size)) * 0.1
    full, half = (
        Dream(World(m, starts(), rules, squash, dtype=dtype), controller).rollout(theta, 1, 8)[0]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert np.median(np.abs(full - half)) < 0.1
    assert (full != half).any()


@pytest.mark.parametrize("hidden", [H, 32])
def test_dreams_with_padded_operands_are_the_same(hidden: int):
    """As on a GPU; only the order of additions may differ."""
    m, rules = memory(done=0.0, hidden=hidden), Rules(steps=30, done="sample", reward="head")
    controller = Controller("zhc", Z, hidden, A)
    theta = np.random.default_rng(1).standard_normal((3, controller.size)) * 0.1
    (plain, lengths), (padded, same_lengths) = (
        Dream(World(m, starts(), rules, squash, aligned=aligned), controller).rollout(theta, 1, 8)
        for aligned in (False, True)
    )
    np.testing.assert_array_equal(lengths, same_lengths)
    np.testing.assert_allclose(padded, plain, rtol=1e-3, atol=1e-3)


def test_rules_that_m_cannot_follow_are_refused():
    with pytest.raises(UserError, match="no reward"):
        dream(memory(reward=False), Rules(steps=9, reward="head"))
    with pytest.raises(UserError, match="no end"):
        dream(MDNRNN(z=Z, actions=A, hidden=H), Rules(steps=9))
    with pytest.raises(UserError, match="first frame"):
        Starts(np.zeros((0, Z)), np.zeros((0, Z)))
    for tau in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match=f"temperature tau must be above 0, got {tau}"):
            Rules(steps=9, tau=tau)


def test_rules_can_be_pickled():
    rules = Rules(steps=9, tau=1.5, done="sample", reward="head", done_weight=10.0)
    assert pickle.loads(pickle.dumps(rules)) == rules
