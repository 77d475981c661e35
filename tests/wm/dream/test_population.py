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

torch.set_num_threads(1)  # small work on a busy machine: two threads would wait for each other

Z, H, A = 5, 12, 2
HEADS = {"reward": True, "done": True}


def squash(raw):
    return torch.cat((torch.tanh(raw[..., :1]), torch.sigmoid(raw[..., 1:])), dim=-1)


def memory(done: float | None = None, hidden: int = H, **options) -> MDNRNN:
    """An M with large weights, so that what it expects depends on what went before; `done` fixes its logit."""
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
def plainly(d: Dream, theta: np.ndarray, seed: int, episode: int) -> tuple[float, int]:
    """One episode of one candidate, step by step, with M's own methods."""
    m, rules, controller = d.world.memory, d.world.rules, d.controller
    rng = np.random.default_rng((seed, episode))
    begun, tau = d.world.begin(rng)
    z, *state = torch.from_numpy(begun)[None].split((Z, m.hidden, m.hidden), dim=1)
    total, steps = 0.0, 0
    while steps < rules.steps:
        if steps % 16 == 0:
            noise = torch.from_numpy(d.world.noise(rng, 16))
        uniform, chance, drop, normal = noise[steps % 16, None].split((Z, 1, d.world.uniforms - Z - 1, Z), dim=1)
        a = squash(controller.act(controller.tensor(theta), controller.features(z, *state)[None])[0])
        state = m.advance(z, a, State(*state), torch.zeros(1) if m.previous_done else None)
        h = state.h
        if rules.dropout:
            h = h * (drop >= rules.dropout) / (1 - rules.dropout)
        expected = m.predict(h)
        z = sample(expected, tau, uniform, normal)
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
        ("z", Rules(steps=40, tau=(0.8, 1.3), reward="head", done="sample"), {"next_action": True}),
        ("zhc", Rules(steps=40, tau=0.5, reward="head", dropout=0.3), {}),
        ("zh", Rules(steps=40, reward="head", done="never", lap=3.0, step_price=0.1), {}),
    ],
)
def test_dreams_as_m_does_step_by_step(inputs, rules, options):
    d = dream(memory(**options), rules, inputs)
    theta = thetas(d, 5)
    returns, lengths = d.rollout(theta, 7, 4)
    assert returns.shape == lengths.shape == (5, 4)
    for candidate in range(5):
        for episode in range(4):
            total, steps = plainly(d, theta[candidate], 7, episode)
            assert lengths[candidate, episode] == steps
            assert returns[candidate, episode] == pytest.approx(total, rel=1e-3, abs=1e-3)
    if rules.done != "never" or rules.lap:
        assert len(np.unique(lengths)) > 2, "the case is too easy to show anything"
        assert lengths.min() < rules.steps
    if rules.reward == "head":
        assert len(np.unique(returns)) == returns.size


def test_the_dead_leave_and_nothing_changes():
    m = memory()
    with torch.no_grad():
        m.heads.weight[-1] *= 8  # done depends much on what is dreamt
        m.heads.bias[-1] -= 6
    rules = Rules(steps=400, done="sample", reward="head")
    d = dream(m, rules)
    theta = thetas(d, 16)
    returns, lengths = d.rollout(theta, 5, 8)
    sizes = {size for size, _ in d.rooms}
    assert len(sizes) >= 4, sizes
    assert max(sizes) == 128
    stays = dream(m, rules)
    stays._size = lambda rows: 128  # nobody ever leaves
    same_returns, same_lengths = stays.rollout(theta, 5, 8)
    assert len(stays.rooms) == 1
    np.testing.assert_array_equal(same_lengths, lengths)
    np.testing.assert_allclose(same_returns, returns, rtol=1e-4, atol=1e-3)
    assert lengths.min() < 16
    assert lengths.max() > 64
    assert max(len(set(each)) for each in lengths.T) > 4  # the same luck, but candidates part at different times


def test_each_candidate_and_episode_is_the_same_alone():
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


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    rules = Rules(steps=50, done="sample", reward="head", tau=(0.5, 1.5))
    d = dream(memory(), rules)
    theta = thetas(d, 7)
    first = d.rollout(theta, 5, 3)
    other = d.rollout(theta, 6, 3)
    for again in (d.rollout(theta, 5, 3), dream(memory(), rules).rollout(theta, 5, 3)):
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_all_candidates_dream_of_the_same_luck():
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
def test_the_cap_ends_what_does_not_end_by_itself(steps):
    d = dream(memory(done=-20.0), Rules(steps=steps))
    returns, lengths = d.rollout(thetas(d, 2), 1, 3)
    np.testing.assert_array_equal(lengths, steps)
    np.testing.assert_array_equal(returns, steps)


def test_an_end_that_is_sampled_comes_with_its_probability():
    d = dream(memory(done=0.0), Rules(steps=100, done="sample"))
    _, lengths = d.rollout(thetas(d, 1), 1, 2000)
    assert lengths.mean() == pytest.approx(2, abs=0.15)  # geometric, 1/2
    assert (lengths == 1).mean() == pytest.approx(0.5, abs=0.05)


def test_the_weight_that_ends_had_in_training_is_taken_back():
    d = dream(memory(done=math.log(10)), Rules(steps=100, done="sample", done_weight=10.0))
    _, lengths = d.rollout(thetas(d, 1), 1, 2000)
    assert lengths.mean() == pytest.approx(2, abs=0.15)


def test_a_cold_dream_is_certain_and_a_warm_one_is_not():
    def spread(tau):
        one = Starts(np.ones((1, Z)), np.full((1, Z), -60))
        d = dream(memory(), Rules(steps=20, tau=tau, done="never", reward="head"), start=one)
        return d.rollout(thetas(d, 1), 1, 50)[0].std()

    assert spread(1e-9) < 1e-2
    assert spread(1.0) > 20 * spread(1e-9) + 0.1


def test_episodes_begin_with_stored_frames_and_temperatures_of_the_range():
    world = dream(memory(), Rules(steps=1, tau=(0.5, 1.5)), start=starts(1e-6)).world
    begun = [world.begin(np.random.default_rng((1, episode))) for episode in range(200)]
    drawn = {tuple(state[:Z].round(3)) for state, _ in begun}
    assert not any(state[Z:].any() for state, _ in begun)  # nothing lies behind a first frame
    assert drawn == {tuple(mu.round(3)) for mu in world.starts.mu}
    taus = np.array([tau for _, tau in begun])
    assert 0.5 <= taus.min() < 0.6
    assert 1.4 < taus.max() <= 1.5
    wide = dream(memory(), Rules(steps=1), start=starts(2.0)).world
    z = np.array([wide.begin(np.random.default_rng(episode))[0][:Z] for episode in range(2000)])
    distance = (z[:, None] - wide.starts.mu).std()
    assert distance == pytest.approx(np.sqrt(4 + 2 * wide.starts.mu.var(axis=0).mean()), rel=0.2)


def test_a_dream_from_amid_an_episode_begins_with_what_m_remembers_of_it():
    m, rng = memory(), np.random.default_rng(4)
    mu, memories = rng.standard_normal((3, Z)), rng.standard_normal((3, 2 * H))
    amid = Starts(mu, np.full((3, Z), -60), memories)
    d = dream(m, Rules(steps=24, done="never", reward="head"), inputs="zhc", start=amid)
    state, _ = d.world.begin(np.random.default_rng(1))
    place = int(np.abs(state[:Z] - mu).sum(axis=1).argmin())
    np.testing.assert_allclose(state, np.concatenate((mu[place], memories[place])), rtol=1e-5, atol=1e-5)
    theta = thetas(d, 2)
    returns, _ = d.rollout(theta, 5, 4)
    expected = [[plainly(d, one, 5, episode)[0] for episode in range(4)] for one in theta]
    np.testing.assert_allclose(returns, expected, rtol=1e-3, atol=1e-3)


def test_what_one_dream_breaks_stays_its_own():
    """A candidate whose reward is not a number must not spread, nor what sleeps on after its end."""
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


def test_what_m_cannot_do_is_said_at_once():
    with pytest.raises(UserError, match="no reward"):
        dream(memory(reward=False), Rules(steps=9, reward="head"))
    with pytest.raises(UserError, match="no end"):
        dream(MDNRNN(z=Z, actions=A, hidden=H), Rules(steps=9))
    with pytest.raises(UserError, match="first frame"):
        Starts(np.zeros((0, Z)), np.zeros((0, Z)))
    for tau in (0.0, (1.0, 0.5)):
        with pytest.raises(UserError, match="temperature"):
            dream(memory(), Rules(steps=9, tau=tau)).rollout(np.zeros((1, 36)), 1, 1)


def test_rules_travel():
    rules = Rules(steps=9, tau=(0.5, 1.5), done="sample", reward="head", dropout=0.1)
    assert pickle.loads(pickle.dumps(rules)) == rules
