"""The dream of an agent by wm itself, step by step, and the same in the page: what the browser tests compare."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from browser import Browser

from wm.agents.trained import Trained
from wm.play.model import world_of

# In the page: arrays travel as base64, since the protocol knows no typed ones.
HELPERS = """
const pack = (arrays, Kind) => {
  const all = Kind.from(arrays.flatMap((one) => typeof one === 'number' ? [one] : [...one]));
  let text = '';
  for (const byte of new Uint8Array(all.buffer)) text += String.fromCharCode(byte);
  return btoa(text);
};
const unpack = (text) => new Float32Array(Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer);
const told = (entries) => Object.fromEntries(['a', 'z', 'h', 'reward', 'logit'].map(
  (name) => [name, pack(entries.map((entry) => entry[name]), Float32Array)]));
"""


@dataclass(frozen=True)
class Steps:
    """What came of each step of one dream."""

    a: np.ndarray  # (T, A)
    z: np.ndarray  # (T, Z)
    h: np.ndarray  # (T, H)
    c: np.ndarray  # (T, H), by wm alone
    reward: np.ndarray  # (T,)
    logit: np.ndarray  # (T,), of the end

    def frames(self, trained: Trained) -> np.ndarray:
        """(T, 64, 64, 3), in 255ths"""
        with torch.no_grad():
            return 255 * trained.vision.decode(torch.from_numpy(self.z)).numpy()


@dataclass(frozen=True)
class Opening:
    """All that a dream depends on: where it begins, its noise and its temperature."""

    z: np.ndarray  # (Z,)
    noise: np.ndarray  # (T, W)
    tau: float = 1.0

    @classmethod
    def drawn(cls, trained: Trained, steps: int, seed: int, tau: float = 1.0) -> "Opening":
        world, rng = world_of(trained), np.random.default_rng(seed)
        state = world.begin(rng)
        return cls(state[: world.memory.z], world.noise(rng, steps), tau)

    def options(self) -> str:
        """As JavaScript, for `dream.begin`."""
        z, noise = (_base64(x) for x in (self.z, self.noise))
        return f"{{z: unpack('{z}'), noise: unpack('{noise}'), log: true}}"


@torch.inference_mode()
def by_wm(trained: Trained, opening: Opening, actions: np.ndarray | None = None) -> Steps:
    """C plays, or these actions (T, A) are taken."""
    world, memory = world_of(trained), trained.memory
    assert memory is not None
    theta, found = trained.controller.tensor(trained.theta), []
    s = world.batch(1)
    s.z[0], world.tau = torch.from_numpy(opening.z), torch.tensor(opening.tau)
    done = world.mixture + world.reward_heads
    for step in range(len(opening.noise) if actions is None else len(actions)):
        if actions is None:
            features = s.state[:, : trained.controller.features_size].unsqueeze(1)
            s.a.copy_(world.squash(trained.controller.act(theta, features).squeeze(1)))
        else:
            s.a[0] = torch.from_numpy(actions[step])
        world.step(s, torch.from_numpy(opening.noise[step : step + 1]))
        logit = s.heads[0, done].item() if memory.outputs[4] else -np.inf
        found.append((s.a[0].tolist(), s.z[0].tolist(), s.h[0].tolist(), s.c[0].tolist(), s.reward.item(), logit))
    return Steps(*(np.array(x, np.float32) for x in zip(*found, strict=True)))


def by_page(chromium: Browser, trained: Trained, opening: Opening, every: int) -> tuple[Steps, np.ndarray]:
    """The same in the page, C playing, with every so many frames (F, 64, 64, 3) uint8."""
    script = f"""(async () => {{ {HELPERS}
        await dream.begin(0, {opening.options()});
        const about = {{ steps: {len(opening.noise)}, tau: {opening.tau}, every: {every} }};
        const {{ frames }} = await dream.ask('run', about);
        const {{ entries }} = await dream.ask('log');
        return JSON.stringify({{ ...told(entries), frames: pack(frames, Uint8Array) }});
    }})()"""
    told = json.loads(chromium.evaluate(script))
    frames = np.frombuffer(base64.b64decode(told["frames"]), np.uint8).reshape(-1, 64, 64, 4)[..., :3]
    return steps_of(told, trained), frames


def one_step_each(chromium: Browser, trained: Trained, opening: Opening, ours: Steps) -> Steps:
    """One step of the page from each state that wm's dream went through, with the action that was taken there."""
    noise = opening.noise[: len(ours.z)]
    zeros = np.zeros(ours.h.shape[1], np.float32)
    firsts = (opening.z, ours.z), (zeros, ours.h), (zeros, ours.c)
    before = [np.vstack((first[None], later[:-1])) for first, later in firsts]
    rows = np.hstack((*before, noise, ours.a)).astype(np.float32)
    widths = np.cumsum([before[0].shape[1], before[1].shape[1], before[2].shape[1], noise.shape[1]]).tolist()
    script = f"""(async () => {{ {HELPERS}
        const rows = unpack('{_base64(rows)}'), width = {rows.shape[1]}, [z, h, c, noise] = {widths}, entries = [];
        for (let at = 0; at < rows.length; at += width) {{
            const row = rows.subarray(at, at + width), part = (from, to) => row.slice(from, to);
            const state = {{ z: part(0, z), h: part(z, h), c: part(h, c) }};
            await dream.ask('begin', {{ seed: 0, ...state, noise: part(c, noise), log: true }});
            await dream.ask('run', {{ steps: 1, tau: {opening.tau}, actions: part(noise, width) }});
            entries.push((await dream.ask('log')).entries[0]);
        }}
        return JSON.stringify(told(entries));
    }})()"""
    return steps_of(json.loads(chromium.evaluate(script)), trained)


def logged(chromium: Browser, trained: Trained) -> Steps:
    """What the page has noted of the dream that it plays."""
    script = f"(async () => {{ {HELPERS} return JSON.stringify(told((await dream.ask('log')).entries)) }})()"
    return steps_of(json.loads(chromium.evaluate(script)), trained)


def steps_of(told: dict[str, Any], trained: Trained) -> Steps:
    assert trained.memory is not None
    sizes = {"a": trained.memory.actions, "z": trained.memory.z, "h": trained.memory.hidden}
    arrays = {}
    for name in ("a", "z", "h", "reward", "logit"):
        values = np.frombuffer(base64.b64decode(told[name]), np.float32).copy()
        arrays[name] = values.reshape(-1, sizes[name]) if name in sizes else values
    return Steps(**arrays, c=np.empty(0))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, np.float32).tobytes()).decode()
