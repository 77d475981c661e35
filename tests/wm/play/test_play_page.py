"""The page as a file, its keys, and its picture; what runs in it is tested in a browser."""

import base64
import copy
import dataclasses
import hashlib
import json
import re

import cv2
import numpy as np
import pytest
import torch

from wm.agents.files import load_agent
from wm.agents.trained import Trained
from wm.envs import Game, load
from wm.errors import UserError
from wm.play.controls import controls_of
from wm.play.model import exported
from wm.play.page import play_page
from wm.play.still import still
from wm.play.wasm import module


@pytest.fixture(scope="module", params=["car-racing", "doom"])
def agent(request: pytest.FixtureRequest) -> Trained:
    return load_agent(request.param)


def test_one_file_that_loads_nothing(agent: Trained) -> None:
    page = play_page(agent)
    assert len(page) < 4e6
    assert "{{" not in page
    assert re.findall(r"(?:src|href)=", page) == []
    assert "http" not in re.sub(r'http-equiv|<script type="text/plain" id="weights">.*?</script>', "", page)
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in page or f"script-src 'sha256-{digest}'" in page


def test_weights_of_a_shipped_agent_are_exact(agent: Trained) -> None:
    """They are stored in half precision already; only the product of the decoder's first two layers is rounded."""
    spec, data = exported(agent)
    about = spec["tensors"]["memory.heads"]
    assert agent.memory is not None
    halves = np.frombuffer(data, np.float16, about["length"] // 2, about["offset"])
    matrix = halves.reshape(-1, about["inner"], 16).transpose(1, 0, 2).reshape(about["inner"], -1)
    weight = agent.memory.heads.weight.detach().numpy().T
    assert np.array_equal(matrix[:, : about["columns"]].astype(np.float32), weight)
    assert not matrix[:, about["columns"] :].any()
    assert json.loads(json.dumps(spec))["z"] == agent.config.vision.z


def test_a_run_keeps_the_bits_of_its_memory_where_there_is_room() -> None:
    agent = load_agent("car-racing")
    assert agent.memory is not None
    memory = copy.deepcopy(agent.memory)
    memory.heads.weight.data += 1e-5
    models = dataclasses.replace(agent.models, memory=memory)
    spec, data = exported(dataclasses.replace(agent, models=models))
    about = spec["tensors"]["memory.heads"]
    assert about["kind"] == "single"
    numbers = np.frombuffer(data, np.float32, about["length"] // 4, about["offset"])
    assert numbers[0] == memory.heads.weight[0, 0].item()
    assert len(data) < 6e6


def test_the_module_is_webassembly() -> None:
    code = module()
    assert code[:8] == b"\0asm\1\0\0\0"
    assert len(code) < 1000


@pytest.mark.parametrize(
    ("game", "codes"),
    [
        ("car-racing", [["ArrowLeft", "KeyA"], ["ArrowRight", "KeyD"], ["ArrowUp", "KeyW"], ["ArrowDown", "KeyS"]]),
        ("doom", [["ArrowLeft", "KeyA"], ["ArrowRight", "KeyD"]]),
        ("gym:CartPole-v1", [["Digit1"], ["Digit2"]]),
        ("gym:MountainCarContinuous-v0", [["Digit1", "ArrowLeft"], ["Digit2", "ArrowRight"]]),
    ],
)
def test_keys(game: str, codes: list[list[str]]) -> None:
    controls = controls_of(load(game))
    assert [list(key.codes) for key in controls.keys] == codes
    assert len(controls.numbers) == load(game).actions
    for key in controls.keys:
        number = controls.numbers[key.index]
        assert number.low <= key.value <= number.high
        assert number.low <= number.rest <= number.high


def test_an_environments_own_names_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    game = load("gym:CartPole-v1")
    made = game.make().unwrapped
    monkeypatch.setattr(type(made), "get_action_meanings", lambda self: ["NOOP", "LEFT"], raising=False)
    controls = controls_of(game)
    assert [(key.label, key.name) for key in controls.keys] == [("1", "noop"), ("←", "left")]
    assert controls.keys[1].codes == ("ArrowLeft", "KeyA", "Digit2")
    assert [number.rest for number in controls.numbers] == [1, 0]


def test_a_game_without_known_keys_is_refused() -> None:
    class Other(Game):
        name = "other"

    Other.__abstractmethods__ = frozenset()
    with pytest.raises(UserError, match="no keys are known for other"):
        controls_of(Other())


@pytest.mark.parametrize(
    ("lacks", "says"),
    [({"memory": None}, "no M"), ({"starts": None}, "jobs.latents"), ({"decodes": False}, "decoder")],
)
def test_what_is_missing_is_named(lacks: dict[str, object], says: str) -> None:
    agent = load_agent("doom")
    if "memory" in lacks:
        lacks = {"models": dataclasses.replace(agent.models, **lacks)}
    with pytest.raises(UserError, match=says):
        play_page(dataclasses.replace(agent, **lacks))


def test_a_still_of_the_page(agent: Trained) -> None:
    torch.set_num_threads(1)
    data = still(agent, steps=30)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (640, 1200, 3)
    assert picture[40:600, 40:600].std() > 5
    assert data == still(agent, steps=30)
