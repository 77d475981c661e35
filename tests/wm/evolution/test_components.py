"""Principal components of C's inputs."""

import numpy as np
import pytest
import torch

from wm.agents.trained import of_run
from wm.errors import UserError
from wm.evolution.components import inputs_while_driving, principal_components
from wm.runs.run import Run
from wm.seeds import training_episode


def test_components_are_those_of_the_inputs_while_c_drives(tiny: Run) -> None:
    """Along the way, each moves its action with a standard deviation of 1, independently of the others."""
    agent = of_run(tiny)
    seen, steps = inputs_while_driving(agent.game, agent.models, agent.theta, 1, patience=20)
    assert seen.shape == (steps, 2 * 32)
    mean, components = principal_components(seen, 3)
    first = agent.game.make().reset(seed=training_episode(1, "components", 0))[0]
    z = agent.vision.encode(torch.from_numpy(first)[None])[0][0]
    np.testing.assert_allclose(seen[0], [*z.detach().numpy(), *np.zeros(32)], atol=1e-4)  # h starts with zeros
    moves = (seen - mean) @ components.T
    np.testing.assert_allclose(np.cov(moves.T, bias=True), np.eye(3), atol=1e-4)
    np.testing.assert_allclose(moves.mean(axis=0), 0, atol=1e-4)
    with pytest.raises(UserError, match=r"--evolve.components must be \d+ or less .* got 99"):
        principal_components(seen, 99)
