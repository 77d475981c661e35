"""M: its sizes, single steps against whole sequences, the mixture's likelihood and samples, and the losses."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from wm.models.memory import MDNRNN, Prediction, losses, nll, sample

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other

ALL = {"reward": True, "done": True, "next_action": True}


def small(**options) -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(z=4, actions=2, hidden=16, mixtures=3, **options)


def sequences(batch: int = 5, length: int = 12):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(batch, length, 4, generator=generator)
    a = torch.randn(batch, length, 2, generator=generator)
    return z, a


def assert_close(one: Prediction, other: Prediction):
    for x, y in zip(one, other, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(x, y, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"z": 32, "actions": 3, "hidden": 256}, 422_368),
        ({"z": 64, "actions": 1, "hidden": 512, "done": True, "previous_done": True}, 1_678_785),
    ],
    ids=["car-racing", "doom"],
)
def test_sizes_are_the_papers(options, count):
    model = MDNRNN(**options)
    inputs, hidden, z = model.inputs, model.hidden, model.z
    assert inputs == z + options["actions"] + options.get("previous_done", False)
    lstm = 4 * hidden * (inputs + hidden) + 4 * hidden  # one bias vector
    heads = (hidden + 1) * (3 * 5 * z + options.get("done", False))
    assert count == lstm + heads
    assert count == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("options", [{}, ALL, {"done": True, "previous_done": True}], ids=["z", "all", "doom"])
def test_single_steps_match_whole_sequences(options):
    model = small(**options)
    z, a = sequences()
    previous_done = None
    if model.previous_done:
        previous_done = torch.zeros(z.shape[:2])
        previous_done[:, 0] = previous_done[1, 5] = previous_done[2, 5] = previous_done[3, 11] = 1
    whole, last = model(z, a, previous_done=previous_done)
    state = model.initial(len(z))
    for t in range(z.shape[1]):
        state = model.advance(z[:, t], a[:, t], state, None if previous_done is None else previous_done[:, t])
        assert_close(model.predict(state.h), Prediction(*(None if x is None else x[:, t] for x in whole)))
    torch.testing.assert_close(state, last, atol=2e-6, rtol=1e-5)


def test_the_lstm_matches_torchs():
    model = small()
    lstm = torch.nn.LSTM(6, 16, batch_first=True)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(model.gates.weight[:, :6])
        lstm.weight_hh_l0.copy_(model.gates.weight[:, 6:])
        lstm.bias_ih_l0.copy_(model.gates.bias)
        lstm.bias_hh_l0.zero_()
    z, a = sequences()
    h, _ = lstm(torch.cat((z, a), dim=-1))
    assert_close(model(z, a)[0], model.predict(h))


def test_a_sequence_in_two_parts_matches_the_whole_sequence():
    model = small()
    z, a = sequences()
    whole, last = model(z, a)
    first, state = model(z[:, :7], a[:, :7])
    second, state = model(z[:, 7:], a[:, 7:], state)
    torch.testing.assert_close(torch.cat((first.mu, second.mu), dim=1), whole.mu)
    torch.testing.assert_close(state, last)


def test_a_previous_done_resets_the_state():
    model = small(previous_done=True)
    z, a = sequences()
    previous_done = torch.zeros(z.shape[:2])
    previous_done[:, 6] = 1
    whole, _ = model(z, a, previous_done=previous_done)
    fresh, _ = model(z[:, 6:], a[:, 6:], previous_done=previous_done[:, 6:])
    torch.testing.assert_close(whole.mu[:, 6:], fresh.mu)
    z[:, :6] += 1
    other, _ = model(z, a, previous_done=previous_done)
    torch.testing.assert_close(other.mu[:, 6:], fresh.mu)
    assert not torch.allclose(other.mu[:, :6], whole.mu[:, :6])


def test_nll_matches_torchs_mixture_in_each_dimension():
    model = small()
    z, a = sequences()
    prediction, _ = model(z, a)
    target = 3 * torch.randn(5, 12, 4)
    mixture = MixtureSameFamily(Categorical(logits=prediction.logpi), Normal(prediction.mu, prediction.logsigma.exp()))
    torch.testing.assert_close(nll(prediction, target), -mixture.log_prob(target))
    assert prediction.logpi.shape == (5, 12, 4, 3)
    torch.testing.assert_close(prediction.logpi.exp().sum(-1), torch.ones(5, 12, 4))
    assert not torch.allclose(prediction.logpi[..., 0, :], prediction.logpi[..., 1, :])


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.3])
def test_samples_have_the_mixtures_moments_at_each_tau(tau):
    logits = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.0, 0.1]])
    mu, sigma = torch.tensor([[-2.0, 0.0, 3.0], [1.0, -1.0, 5.0]]), torch.tensor([[0.1, 1.0, 0.5], [2.0, 0.3, 1.0]])
    n = 100_000
    rows = (x.expand(n, 2, 3) for x in (logits.log_softmax(-1), mu, sigma.log()))
    generator = torch.Generator().manual_seed(2)
    uniform, normal = (
        torch.rand(n, 2, generator=generator),
        torch.randn(n, 2, generator=generator),
    )
    z = sample(Prediction(*rows, None, None, None), tau, uniform, normal)
    reference = MixtureSameFamily(
        Categorical(logits=logits / tau), Normal(mu, sigma * tau**0.5)
    )  # tau times the variance
    torch.testing.assert_close(z.mean(0), reference.mean, atol=0.04, rtol=0)
    torch.testing.assert_close(z.var(0), reference.variance, atol=0.06, rtol=0.01)
    assert ((z[:, 0] > 1.5).float().mean() - torch.softmax(logits / tau, -1)[0, 2]).abs() < 0.1


def test_only_the_uniform_noise_chooses_the_component():
    logpi = torch.log(torch.tensor([[0.2, 0.0, 0.8]]))  # the middle component has probability 0
    mu = torch.tensor([[1.0, 2.0, 3.0]])
    prediction = Prediction(logpi, mu, torch.zeros(1, 3), None, None, None)
    for uniform, expected in ((0.0, 1.0), (0.19, 1.0), (0.21, 3.0), (1 - 2**-24, 3.0)):
        assert sample(prediction, 1.0, torch.tensor([uniform]), torch.zeros(1)).item() == expected
    assert sample(prediction, 1e-3, torch.tensor([0.0]), torch.zeros(1)).item() == 3.0  # low tau: only the largest


def test_nothing_overflows_for_extreme_inputs():
    model = small(**ALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e4)
    z, a = sequences()
    z, a = (1e20 * z).requires_grad_(), 1e20 * a
    prediction, state = model(z, a)
    state = model.advance(z[:, 0], a[:, 0], state)
    assert all(x.isfinite().all() for x in (*prediction, *state))
    ones = torch.ones(z.shape[:2])
    loss = losses(
        prediction,
        z_next=1e20 * torch.ones_like(z),
        next_mask=ones,
        mask=ones,
        reward=ones,
        done=ones,
        next_action=torch.zeros_like(a),
    )["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    for tau in (1e-4, 1.0, 100.0):
        drawn = sample(prediction, tau, torch.rand(z.shape), torch.randn(z.shape))
        assert drawn.isfinite().all()


def test_each_loss_is_a_mean_over_its_mask():
    model = small(**ALL)
    z, a = sequences(2, 4)
    prediction, _ = model(z, a)
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])  # lengths 4 and 2
    next_mask = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0]])  # there is no frame after the last step
    targets = {
        "z_next": torch.randn(2, 4, 4),
        "reward": torch.randn(2, 4),
        "done": torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, 0]]),
        "next_action": torch.randn(2, 4, 2),
    }
    found = losses(prediction, next_mask=next_mask, mask=mask, **targets)
    steps, nexts = mask.bool(), next_mask.bool()
    probability = prediction.done.sigmoid()
    entropy = -torch.where(targets["done"] == 1, 10 * probability.log(), (1 - probability).log())
    expected = {
        "nll": nll(prediction, targets["z_next"])[nexts].mean(),
        "reward": (prediction.reward - targets["reward"])[steps].square().mean(),
        "done": entropy[steps].mean(),
        "next_action": (prediction.next_action - targets["next_action"])[nexts].square().mean(),
    }
    assert set(found) == {"loss", *expected}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    torch.testing.assert_close(found["loss"], sum(expected.values()))


def test_values_outside_the_masks_have_no_influence():
    model = small(**ALL)
    z, a = sequences(2, 4)
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    gradients = []
    for padding in (0.0, 9.0):
        z, a = z.clone(), a.clone()
        z[1, 2:] = a[1, 2:] = padding
        targets = {"z_next": z.roll(-1, 1), "reward": z[..., 0], "done": mask, "next_action": a}
        model.zero_grad()
        next_mask = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0]])
        losses(model(z, a)[0], next_mask=next_mask, mask=mask, **targets)["loss"].backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_short_training_learns_a_mixture_with_two_modes():
    torch.manual_seed(3)
    model = MDNRNN(z=1, actions=1, hidden=16, mixtures=2)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    ones = torch.ones(64, 8)
    for _ in range(150):
        z = torch.randint(0, 2, (64, 9, 1)) * 4.0 - 2 + 0.1 * torch.randn(64, 9, 1)
        prediction, _ = model(z[:, :-1], torch.zeros(64, 8, 1))
        loss = losses(prediction, z_next=z[:, 1:], next_mask=ones, mask=ones)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)
        optimizer.step()
    assert loss < 0.3  # one Gaussian with deviation 2 has 2.1, the true mixture -0.2


def test_bf16_autocast_keeps_the_loss_in_fp32():
    model = small(**ALL)
    z, a = sequences()
    with torch.autocast("cpu", torch.bfloat16):
        prediction, _ = model(z, a)
        value = nll(prediction, z)
    assert all(x.dtype == torch.float32 for x in (*prediction, value))
    reference, _ = model(z, a)
    torch.testing.assert_close(prediction.mu, reference.mu, atol=0.03, rtol=0.05)
    value.mean().backward()


def test_wrong_shapes_are_refused():
    model = small(previous_done=True)
    z, a = sequences()
    with pytest.raises(AssertionError, match="previous done"):
        model(z, a)
    with pytest.raises(AssertionError, match="12"):
        model(z, a[:, :-1], previous_done=torch.zeros(5, 12))
