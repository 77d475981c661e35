"""The page to play on: one HTML file with style, program and weights in it."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

from wm.agents.trained import Trained
from wm.play.model import exported
from wm.play.wasm import module
from wm.visuals.style import CSS

ASSETS = Path(__file__).with_name("assets")
WORKER = ("matrices", "noise", "decoder", "dream", "worker")
SCRIPT = ("controls", "panels", "main")
SEED = 1  # of the dream that the page opens with


def play_page(trained: Trained) -> str:
    """The whole file. It asks for nothing from elsewhere and forbids itself to."""
    spec, weights = exported(trained)
    spec["words"] = _driver(trained.config.game)
    script = _joined(SCRIPT)
    fields = {
        **_words(trained, spec),
        "policy": _policy(script),
        "css": CSS + (ASSETS / "page.css").read_text(),
        "spec": json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c"),
        "weights": base64.b64encode(weights).decode(),
        "wasm": base64.b64encode(module()).decode(),
        "worker": _joined(WORKER),
        "script": script,
    }
    template = (ASSETS / "page.html").read_text()
    return re.sub(r"{{(\w+)}}", lambda match: fields[match[1]], template)


def _joined(names: tuple[str, ...]) -> str:
    """Files of JavaScript, one after the other, as one strict script of its own scope."""
    parts = [(ASSETS / f"{name}.js").read_text().removeprefix('"use strict";\n') for name in names]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def _policy(script: str) -> str:
    """This script alone runs, and workers made from it; nothing is loaded from anywhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}' 'wasm-unsafe-eval' blob:; worker-src blob:;"
        " img-src data:; style-src 'unsafe-inline'"
    )


def _driver(game: str) -> dict[str, str]:
    verb = "driving" if game == "car-racing" else "playing"
    return {"c": f"C is {verb}", "you": f"You are {verb}"}


def _words(trained: Trained, spec: dict[str, Any]) -> dict[str, str]:
    """What the page says about this agent, escaped."""
    game, controller = trained.config.game, trained.controller
    watched = {"car-racing": "a car on random race tracks", "doom": "a game of Doom"}.get(
        game, f"the game {game.removeprefix('gym:')}"
    )
    driving = _driver(game)["c"].removeprefix("C is ")
    keys = spec["controls"]["keys"]
    sees = {"z": "z", "zh": "z and h", "zhc": "z, h and M\u2019s cell state c"}[controller.inputs]
    words = {
        "title": {"car-racing": "Drive inside a dream", "doom": "Dodge fireballs inside a dream"}.get(
            game, "Play inside a dream"
        ),
        "lead": (
            f"There is no game on this page. A neural network watched {watched} and learned what comes next. It"
            " imagines every frame you see, thirty times a second, on your own device, and responds to your actions."
        ),
        "z": spec["z"],
        "hidden": spec["hidden"],
        "mixtures": spec["mixtures"],
        "seed": SEED,
        "tau": f"{spec['rules']['tau']:g}",
        "driving": driving,
        "action_note": "What M receives as the action: blue from C, orange from you.",
        "controller": f"a single linear layer with {controller.size:,} weights"
        if not controller.layer
        else f"a network with one hidden layer and {controller.size:,} weights",
        "sees": sees,
        "key_list": ", ".join(f"{key['label']} {key['name']}" for key in keys),
        **_expectation(game, spec),
    }
    return {name: html.escape(str(text)) for name, text in words.items()}


def _expectation(game: str, spec: dict[str, Any]) -> dict[str, str]:
    """What M says about each step besides z: its reward, or how likely it is the last one."""
    if spec["done"]:
        return {
            "expectation": "Chance of dying" if game == "doom" else "Chance of the end",
            "now": "in this step",
            "expectation_note": (
                "The probability that M gives to the episode ending with this step. The dream ends when it is above"
                f" {_limit(spec)}. Each step survived counts 1."
                if spec["rules"]["done"] == "threshold"
                else "The probability that M gives to the episode ending with this step."
            ),
        }
    return {
        "expectation": "Expected reward",
        "now": "in this step",
        "expectation_note": (
            "The reward that M predicts for this step. Each new piece of road is worth points, so it is positive on the"
            " road and about zero elsewhere."
            if game == "car-racing"
            else "The reward that M predicts for this step. The return is the sum of these rewards."
        ),
    }


def _limit(spec: dict[str, Any]) -> str:
    """The chance at which the done logit is 0: ends counted more in training, which is taken back here."""
    return f"{100 / (1 + spec['rules']['doneWeight']):.0f} %"
