"""Estimates how long a config takes on given machines: the work of each stage divided by measured rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.envs import load
from wm.experiments.rounds import round_config
from wm.runs.disk_space import frames_of
from wm.runs.stages import STAGES


@dataclass(frozen=True)
class Rates:
    """Throughput per second. Defaults were measured with `python -m jobs.bench` on an AMD EPYC with AVX2."""

    collect: float = 2_000.0
    """Frames of random play, collected and stored; one core."""
    vision: float = 333.0
    """Frames in the training of V; two threads."""
    vision_gpu: float = 8_000.0
    """The same on a GPU (assumed, not measured)."""
    encode: float = 2_600.0
    """Frames through V's encoder; one core."""
    memory: float = 27_000.0
    """Steps in the training of M; two threads."""
    memory_gpu: float = 400_000.0
    """The same on a GPU (assumed, not measured)."""
    agent: float = 1_000.0
    """Steps of the agent in the real game, in units of 32 episodes; one core."""
    agent_small: float = 700.0
    """The same in units of 4 episodes."""
    exact: float = 75.0
    """Steps of the unmodified game, which scores use; one core."""
    doom: float = 900.0
    """Steps of Doom at 320x240; one core."""
    doom_exact: float = 350.0
    """The same at 640x480."""
    dream: float = 80_000.0
    """Steps of the agent in the dream; one core."""
    dream_gpu: float = 4_000_000.0
    """The same on a GPU (assumed, not measured)."""


def scaled(vision: float, agent: float, exact: float) -> Rates:
    """The default rates at the speed of another machine's trainings and games."""
    usual = Rates()
    trains, plays = vision / usual.vision, agent / usual.agent
    played = ("collect", "encode", "agent_small", "doom", "doom_exact", "dream")
    return replace(
        usual,
        vision=vision,
        agent=agent,
        exact=exact,
        memory=usual.memory * trains,
        **{name: getattr(usual, name) * plays for name in played},
    )


@dataclass(frozen=True)
class Estimate:
    """Time and resources of one stage."""

    stage: str
    seconds: float
    cpus: int  # in use
    gpus: int
    bytes: int
    work: str  # description, such as "160,000 frames"


START = 8.0  # seconds to start workers, build networks and warm up
DRIVER = 0.06  # seconds per generation for CMA-ES and the checkpoint
EPISODE_FRACTION = 0.6  # length of an episode in evolution relative to the game's limit


def estimate(config: Config, cpus: int, gpus: int, rates: Rates, earlier: Sequence[Config] = ()) -> list[Estimate]:
    """Estimates for all stages on this many CPU workers and GPUs; rollouts of `earlier` rounds are encoded again."""
    game, collect = load(config.game), config.collect
    if game.name == "doom":
        rates = replace(rates, collect=rates.doom, agent=rates.doom, exact=rates.doom_exact)
    frames = frames_of(config)
    seen = [*earlier, config]
    encoded = sum(map(frames_of, seen)) * (1 + config.latents.mirrored)
    played = rates.agent_small if collect.agent else rates.collect
    on_gpu = gpus > 0
    stages = [
        _mapped(config, "collect", _shards(config), frames / played, cpus, f"{frames:,} frames"),
        _trained(config, "vision", config.vision.steps * config.vision.batch, rates.vision, rates.vision_gpu, on_gpu),
        replace(
            _mapped(config, "latents", sum(map(_shards, seen)), encoded / rates.encode, cpus, f"{encoded:,} frames"),
            bytes=sum(_bytes(one, "latents") for one in seen),
        ),
    ]
    if config.uses_memory:
        steps = config.memory.steps * config.memory.batch * config.memory.sequence
        cost = (config.memory.hidden / 256) ** 2  # nearly all of it is H x H matrix products
        stages.append(_trained(config, "memory", steps, rates.memory / cost, rates.memory_gpu / cost, on_gpu))
    stages.append(_evolved(config, cpus, gpus, rates))
    exact = config.score.episodes * game.max_steps
    units = -(-config.score.episodes // config.score.unit_episodes)
    stages.append(_mapped(config, "score", units, exact / rates.exact, cpus, f"{config.score.episodes:,} episodes"))
    return stages


def estimate_rounds(config: Config, rounds: int, cpus: int, gpus: int, rates: Rates) -> dict[str, list[Estimate]]:
    """Estimates for this many rounds, of which only the last one is scored."""
    parts = [round_config(config, number, "before") for number in range(rounds)]
    table: dict[str, list[Estimate]] = {}
    for number, part in enumerate(parts):
        frozen = part.vision.frozen
        stages = estimate(part, cpus, gpus, rates, () if frozen else parts[:number])
        table[f"round {number}"] = [one for one in stages if not (frozen and one.stage == "vision")]
    for name in list(table)[:-1]:
        table[name] = [one for one in table[name] if one.stage != "score"]
    return table


def side_by_side(stages: Sequence[Estimate], runs: int, gpus: int) -> list[Estimate]:
    """This many equal runs at a time, such as seeds, given the estimates of one with its share of the CPUs.

    They wait for each other where there are fewer GPUs than runs.
    """
    found = []
    for stage in stages:
        waves = -(-runs * stage.gpus // gpus) if stage.gpus else 1
        found.append(
            replace(
                stage,
                seconds=stage.seconds * waves,
                cpus=stage.cpus * runs,
                gpus=min(gpus, stage.gpus * runs),
                bytes=stage.bytes * runs,
                work=f"{runs} x {stage.work}",
            )
        )
    return found


def _shards(config: Config) -> int:
    return -(-config.collect.episodes // config.collect.unit_episodes)


def _bytes(config: Config, stage: str) -> int:
    return int(STAGES[stage].bytes(config))


def _mapped(config: Config, stage: str, units: int, core_seconds: float, cpus: int, work: str) -> Estimate:
    """Workers process units in waves; in the last one some may be idle."""
    waves = -(-units // cpus)
    return Estimate(stage, START + waves * core_seconds / units, min(cpus, units), 0, _bytes(config, stage), work)


def _trained(config: Config, stage: str, items: int, rate: float, rate_gpu: float, on_gpu: bool) -> Estimate:
    return Estimate(
        stage,
        START + items / (rate_gpu if on_gpu else rate),
        0 if on_gpu else 2,
        int(on_gpu),
        _bytes(config, stage),
        f"{items:,} {'frames' if stage == 'vision' else 'steps'} in batches",
    )


def _evolved(config: Config, cpus: int, gpus: int, rates: Rates) -> Estimate:
    section, limit = config.evolve, load(config.game).max_steps
    episodes = section.population * section.episodes
    units = -(-episodes // section.unit_episodes)
    on_gpu = section.where == "dream" and section.device == "cuda" and gpus > 0
    waves = -(-units // (gpus if on_gpu else cpus))
    if section.where == "dream":
        length = (1.0 if section.dream_done == "never" else EPISODE_FRACTION) * section.dream_steps
        speed = (rates.dream_gpu if on_gpu else rates.dream) * (256 / config.memory.hidden) ** 2
    else:
        length = (EPISODE_FRACTION if section.patience else 0.9) * limit
        speed = rates.agent if section.unit_episodes >= 16 else rates.agent_small
    generation = waves * min(section.unit_episodes, episodes) * length / speed + DRIVER
    rounds = 1 + (section.generations - 1) // section.validate_every
    unit = min(section.unit_episodes, section.validation_episodes)
    validation = -(-section.validation_episodes // unit // cpus) * unit * limit / rates.agent
    seconds = START + section.generations * generation + rounds * validation
    steps = section.generations * episodes * length
    return Estimate(
        "evolve",
        seconds,
        min(cpus, section.validation_episodes if on_gpu else units),
        min(gpus, units) if on_gpu else 0,
        _bytes(config, "evolve"),
        f"{steps:,.0f} steps in the {'dream' if section.where == 'dream' else 'real game'}, {units:,} units at a time",
    )


def rates_of(figures: Mapping[str, float | None]) -> Rates:
    """Rates from the figures of `python -m jobs.bench` by name; missing ones keep their default."""
    names = {
        "collecting, frames stored, one core": "collect",
        "training V, 2 threads": "vision",
        "encoding, shard to shard, one core": "encode",
        "training M, 2 threads": "memory",
        "agent in the real game, units of 32 episodes, one core": "agent",
        "agent in the real game, units of 4 episodes, one core": "agent_small",
        "unmodified CarRacing, one core": "exact",
        "Doom at 320x240, in a process of its own, resets included": "doom",
        "Doom at 640x480, in a process of its own, resets included": "doom_exact",
        "dream of car-racing, 64 candidates x 16 episodes, one core": "dream",
        "V, batch 128, float32, frames on the GPU": "vision_gpu",
        "dreams, 16,384 at a time, tf32": "dream_gpu",
    }
    found = {names[name]: figure for name, figure in figures.items() if name in names and figure}
    if updates := figures.get("M of car-racing, float32"):  # of the benchmark of GPUs
        memory = PRESETS["car-racing"].memory
        found["memory_gpu"] = updates * memory.batch * memory.sequence
    return Rates(**found)
