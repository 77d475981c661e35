"""C: its sizes, actions of a whole population, and the scales and directions of the search."""

import math
import pickle

import numpy as np
import pytest
import torch

from wm.models.controller import Controller

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other

SHAPES = [
    Controller("zh", z=32, hidden=256, outputs=3),
    Controller("zhc", z=64, hidden=512, outputs=1, bias=False),
    Controller("z", z=32, hidden=256, outputs=3),
    Controller("z", z=32, hidden=256, outputs=3, layer=40),
    Controller("zh", z=3, hidden=4, outputs=2, layer=5, bias=False),
]


def candidates(controller: Controller, population: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((population, controller.size))


@pytest.mark.parametrize(
    ("controller", "size"),
    list(zip(SHAPES, [867, 1088, 99, 40 * 32 + 40 + 3 * 40 + 3, 5 * 7 + 2 * 5], strict=True)),
)
def test_sizes_are_the_papers(controller, size):
    assert controller.size == size


@pytest.mark.parametrize("controller", SHAPES)
def test_the_scale_gives_all_inputs_the_same_weight(controller):
    sizes = 10 ** np.random.default_rng(3).uniform(-2, 2, controller.features_size)
    first, *others = controller.weights(torch.from_numpy(controller.scale(sizes)))
    counts = first.numpy() * sizes  # (out, F)
    assert counts.min() > 0.7
    assert counts.max() < 1.42
    assert torch.equal(first.log2(), first.log2().round())
    assert all((other == 1).all() for other in others)
    assert np.isfinite(controller.scale(np.zeros(controller.features_size))).all()


@pytest.mark.parametrize("controller", [one for one in SHAPES if not one.layer])
def test_each_direction_moves_one_output_by_one_component_and_keeps_the_mean(controller):
    random = np.random.default_rng(3)
    components, mean = (
        random.standard_normal((2, controller.features_size)),
        random.standard_normal(controller.features_size),
    )
    directions = controller.directions(mean, components)
    outputs, biased = controller.outputs, int(controller.bias)
    assert directions.shape == (outputs * (2 + biased), controller.size)
    seen = random.standard_normal((5, controller.features_size)).astype(np.float32)
    theta = controller.tensor(directions)
    acted = controller.act(theta, torch.from_numpy(seen).expand(len(theta), -1, -1)).numpy()  # (D, 5, A)
    expected = np.zeros_like(acted)
    for output in range(outputs):
        expected[2 * output : 2 * output + 2, :, output] = components @ (seen - biased * mean).T
        if biased:
            expected[2 * outputs + output, :, output] = 1
    np.testing.assert_allclose(acted, expected, atol=1e-4)


@pytest.mark.parametrize("controller", SHAPES)
def test_the_actions_of_a_population_match_numpy(controller):
    population, episodes = 6, 4
    thetas = candidates(controller, population) * 0.3
    features = torch.randn(population, episodes, controller.features_size, generator=torch.manual_seed(2))
    raw = controller.act(controller.tensor(thetas), features)
    assert raw.shape == (population, episodes, controller.outputs)
    for theta, seen, did in zip(thetas, features.double().numpy(), raw.numpy(), strict=True):
        x, rest = seen, theta
        layers = [controller.layer, controller.outputs] if controller.layer else [controller.outputs]
        for outputs in layers:
            matrix, rest = np.split(rest, [outputs * x.shape[1]])
            x = x @ matrix.reshape(outputs, x.shape[1]).T
            if controller.bias:
                b, rest = np.split(rest, [outputs])
                x = x + b
            if outputs != layers[-1] or (controller.layer and len(rest)):
                x = np.tanh(x)
        assert rest.size == 0
        np.testing.assert_allclose(did, x, atol=2e-5)
        assert np.abs(did).max() > 0.1


@pytest.mark.parametrize("controller", SHAPES)
def test_rows_of_other_owners_act_as_in_the_population(controller):
    theta = controller.tensor(candidates(controller, 5))
    features = torch.randn(5, 3, controller.features_size)
    together = controller.act(theta, features)
    owner = torch.tensor([4, 0, 0, 2])
    apart = controller.act(theta[owner], features[owner, 1][:, None])[:, 0]
    torch.testing.assert_close(apart, together[owner, 1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(apart[0], apart[1])


@pytest.mark.parametrize("controller", SHAPES)
def test_weights_are_views_that_cover_theta(controller):
    theta = torch.arange(2 * controller.size, dtype=torch.float64).view(2, -1)
    weights = controller.weights(theta)
    assert [tuple(w.shape[1:]) for w in weights] == list(controller.shapes)
    torch.testing.assert_close(torch.cat([w.flatten(1) for w in weights], dim=1), theta, rtol=0, atol=0)
    weights[0][1].fill_(-1)
    assert (theta[1, : math.prod(controller.shapes[0])] == -1).all()
    assert (theta[0] >= 0).all()


def test_theta_is_rounded_to_the_nearest_fp32():
    controller = Controller("z", z=2, hidden=0, outputs=1)
    theta = np.array([0.1, 1 + 2**-40, -1e-3])
    tensor = controller.tensor(theta)
    assert tensor.shape == (1, 3)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor[0].numpy(), theta.astype(np.float32))


def test_features_are_the_chosen_inputs_and_a_missing_one_is_an_error():
    z, h, c = torch.full((2, 2), 1.0), torch.full((2, 3), 2.0), torch.full((2, 3), 3.0)
    for inputs, values in {"z": [1, 1], "zh": [1, 1, 2, 2, 2], "zhc": [1, 1, 2, 2, 2, 3, 3, 3]}.items():
        seen = Controller(inputs, z=2, hidden=3, outputs=1).features(z, h, c)
        assert seen[1].tolist() == values
    with pytest.raises(AssertionError, match="missing"):
        Controller("zh", z=2, hidden=3, outputs=1).features(z)


def test_a_theta_of_another_size_is_refused():
    with pytest.raises(AssertionError):
        SHAPES[0].tensor(np.zeros(866))


def test_can_be_pickled():
    for controller in SHAPES:
        assert pickle.loads(pickle.dumps(controller)) == controller
