"""The dream as a gymnasium environment: gymnasium's contract, M's steps, automatic resets and outside trainers."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from wm.dream.env import ID, DreamEnv, DreamVectorEnv
from wm.dream.rules import Rules
from wm.dream.starts import Starts
from wm.dream.world import World
from wm.models.memory import MDNRNN, State, sample
from wm.models.vision import VAE

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other

Z, H, A, CAP = 4, 8, 2, 5


def squash(raw):
    return torch.cat((torch.tanh(raw[..., :1]), (torch.tanh(raw[..., 1:]) + 1) / 2), dim=-1)


def world(done="never", cap=CAP, **options) -> World:
    torch.manual_seed(1)
    m = MDNRNN(z=Z, actions=A, hidden=H, mixtures=3, reward=True, done=True)
    start = Starts(np.random.default_rng(1).standard_normal((3, Z)), np.full((3, Z), -2.0))
    return World(m, start, Rules(steps=cap, done=done, reward="head", **options), squash)


@pytest.mark.parametrize("sees", ["z", "zh", "zhc"])
def test_passes_gymnasiums_checker(sees):
    env = gymnasium.make(ID, world=world("sample", tau=1.5), sees=sees)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*observation space m..imum value is.*infinity")  # z is unbounded
        check_env(env.unwrapped)
    assert env.observation_space.shape == (Z + H * (len(sees) - 1),)


@torch.no_grad()
def test_steps_match_m():
    w = world(tau=0.9)
    env = gymnasium.make(ID, world=w, sees="zhc")
    seen, _ = env.reset(seed=3)
    rng = np.random.default_rng(3)
    begun = w.begin(rng)
    np.testing.assert_array_equal(seen, begun)
    z, state = torch.from_numpy(begun[None, :Z]), w.memory.initial(1)
    env.action_space.seed(1)
    for step in range(1, CAP + 1):
        u = env.action_space.sample()
        seen, reward, terminated, truncated, _ = env.step(u)
        noise = torch.from_numpy(w.noise(rng, 1))
        a = torch.tensor([[u[0], (u[1] + 1) / 2]])  # this game's actions; its squash contains a tanh
        state = w.memory.advance(z, a, State(*state))
        expected = w.memory.predict(state.h)
        z = sample(expected, 0.9, noise[:, :Z], noise[:, -Z:])
        np.testing.assert_allclose(seen, torch.cat((z, *state), dim=1)[0], atol=1e-5)
        assert reward == pytest.approx(expected.reward.item(), abs=1e-5)
        assert (terminated, truncated) == (False, step == CAP)


@pytest.mark.parametrize("mode", [None, "sync", "async"])
def test_many_dreams_step_together(mode):
    envs = gymnasium.make_vec("wm.dream.env:" + ID, num_envs=3, vectorization_mode=mode, world=world())
    assert isinstance(envs, DreamVectorEnv) == (mode is None)
    seen, _ = envs.reset(seed=1)
    for _ in range(2 * CAP + 2):
        seen, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert seen in envs.observation_space
        assert seen.shape == (3, Z + H)
        assert reward.shape == terminated.shape == truncated.shape == (3,)
    envs.close()


def test_dreams_are_a_function_of_the_seed():
    def trace(seed):
        envs = gymnasium.make_vec(ID, num_envs=4, world=world("sample"))
        envs.action_space.seed(1)
        steps = [envs.reset(seed=seed)[0]]
        steps += [envs.step(envs.action_space.sample())[0] for _ in range(12)]
        return np.array(steps)

    np.testing.assert_array_equal(trace(1), trace(1))
    assert not np.array_equal(trace(1), trace(2))
    assert len(np.unique(trace(1)[0], axis=0)) == 4


def test_next_step_autoreset_restarts_in_the_step_after_the_end():
    envs = gymnasium.make_vec(ID, num_envs=2, world=world())
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs.reset(seed=1)
    for episode in range(2):
        for step in range(1, CAP + 1):
            seen, reward, terminated, truncated, _ = envs.step(np.zeros((2, A)))
            assert (truncated == (step == CAP)).all(), (episode, step)
            assert not terminated.any()
            assert seen[:, Z:].all()
            assert reward.all()
        seen, reward, terminated, truncated, _ = envs.step(np.ones((2, A)))
        assert not (terminated | truncated | (reward != 0)).any()
        assert not seen[:, Z:].any()  # M's state was reset


def test_same_step_autoreset_restarts_in_the_last_step():
    envs = gymnasium.make_vec(ID, num_envs=3, world=world("sample", 20), autoreset=AutoresetMode.SAME_STEP)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    envs.reset(seed=1)
    ends = 0
    for _ in range(40):
        seen, _, terminated, truncated, infos = envs.step(envs.action_space.sample())
        over = terminated | truncated
        np.testing.assert_array_equal(seen[:, Z:].any(axis=1), ~over)
        if over.any():
            np.testing.assert_array_equal(infos["_final_obs"], over)
            for place, last in enumerate(infos["final_obs"]):
                assert (last is not None) == over[place]
                assert last is None or last[Z:].any()
        else:
            assert infos == {}
        ends += over.sum()
    assert ends > 10


def test_a_predicted_done_terminates():
    w = world("threshold")
    w.heads[0][-1] = 50
    envs = DreamVectorEnv(2, world=w)
    envs.reset(seed=1)
    *_, terminated, truncated, _ = envs.step(np.zeros((2, A)))
    assert terminated.all()
    assert not truncated.any()


def test_a_finished_lap_terminates():
    """The next dream counts its rewards from 0."""
    w = world(cap=100, lap=2.0, step_price=0.25)
    w.heads[0][3 * 3 * Z] += 0.1  # so that rewards add up to a lap
    envs = DreamVectorEnv(3, world=w)
    envs.reset(seed=1)
    earned, laps = np.zeros(3), 0
    for _ in range(60):
        _, reward, terminated, truncated, _ = envs.step(np.zeros((3, A)))
        earned += np.where(begins := earned >= 2, -earned, reward + 0.25)
        assert (reward[begins] == 0).all()
        np.testing.assert_array_equal(terminated, earned >= 2)
        assert not truncated.any()
        laps += terminated.sum()
    assert laps > 6


def test_actions_at_the_bounds_are_finite():
    env = DreamEnv(world=world())
    env.reset(seed=1)
    for u in (-1, 1):
        assert np.isfinite(env.step(np.full(A, u))[0]).all()
        a = env.dreams.batch.a[0].numpy()
        np.testing.assert_allclose(a, [u, (u + 1) / 2], atol=1e-5)


def test_unsupported_options_are_refused():
    with pytest.raises(ValueError, match="must be rgb_array"):
        DreamVectorEnv(2, world=world(), vision=VAE(Z), render_mode="human")
    with pytest.raises(ValueError, match="autoreset"):
        DreamVectorEnv(2, world=world(), autoreset=AutoresetMode.DISABLED)


@pytest.mark.filterwarnings("ignore:.*observation space m")
def test_recorders_get_the_frames_that_v_decodes():
    from stable_baselines3.common.vec_env import DummyVecEnv

    vision = VAE(Z)
    options = {"world": world(cap=30), "vision": vision, "render_mode": "rgb_array"}
    recorded = gymnasium.wrappers.RenderCollection(gymnasium.make(ID, **options))
    z, _ = recorded.reset(seed=1)
    seen = [z[:Z], *(recorded.step(recorded.action_space.sample())[0][:Z] for _ in range(3))]
    frames = recorded.render()
    with torch.no_grad():
        decoded = (vision.decode(torch.from_numpy(np.stack(seen))).clamp(0, 1) * 255).round().byte().numpy()
    # A batch adds in another order, so a value may be rounded the other way.
    assert np.abs(np.stack(frames).astype(int) - decoded).max() <= 1
    assert len(np.unique(decoded)) > 10
    trainers = DummyVecEnv([lambda: gymnasium.make(ID, **options)] * 2)
    trainers.reset()
    assert [image.shape for image in trainers.get_images()] == [(64, 64, 3)] * 2
    dreams = gymnasium.make_vec(ID, num_envs=3, **options)
    dreams.reset(seed=1)
    assert [frame.shape for frame in dreams.render()] == [(64, 64, 3)] * 3
    check_env(gymnasium.make(ID, **options).unwrapped)


def test_without_v_the_picture_shows_z():
    env = DreamEnv(world=world(), render_mode="rgb_array")
    z = env.reset(seed=1)[0][:Z]
    picture = env.render()
    assert picture.shape == (64, 64, 3)
    assert picture[::32, ::32, 0].ravel().tolist() == ((z.clip(-3, 3) + 3) / 6 * 255).round().tolist()


def test_stable_baselines_trains_in_it():
    baselines = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env

    env = gymnasium.make(ID, world=world("sample", 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
    steps = {"n_steps": 64, "seed": 1, "device": "cpu"}
    agent = baselines.PPO("MlpPolicy", env, batch_size=32, n_epochs=2, **steps)
    before = [x.detach().clone() for x in agent.policy.parameters()]
    agent.learn(256)
    assert agent.num_timesteps == 256
    assert any(not torch.equal(x, y) for x, y in zip(before, agent.policy.parameters(), strict=True))
    assert len(agent.ep_info_buffer) > 5
    action, _ = agent.predict(env.reset(seed=1)[0], deterministic=True)
    assert action in env.action_space
