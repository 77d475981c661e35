"""The sections of a config, one for each stage, as frozen dataclasses. `wm/config/fields.py` explains field kinds."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from tyro.conf import Suppress

from wm.config.fields import bits, check_types, extent, free, not_negative, overrides, positive, with_overrides
from wm.envs import Game, load
from wm.errors import UserError

FORMAT = 3  # of everything in a run and of agent files; other formats are refused
MOST_THREADS = 1024  # `wm/runs/memory_space.py` compares with the machine
LARGEST_SIGMA = 1_000.0

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]  # auto: what the machine that starts the run is fast at


def check_threads(name: str, threads: int) -> None:
    if not 1 <= threads <= MOST_THREADS:
        raise UserError(f"--{name} must be in [1, {MOST_THREADS}], got {threads}")


@dataclass(frozen=True)
class Collect:
    """Rollouts in the real game, of a random policy or of an agent with exploration noise."""

    episodes: int = extent(10_000)
    """Episodes to collect. Can be raised later."""
    steps: int = bits(1000)
    """Maximum steps of an episode."""
    policy: str = bits("mixture")
    """Random policy: mixture, or one of its parts (CarRacing: brownian, held, mild; others: held, independent; Doom
    also: long, swinging)."""
    unit_episodes: int = bits(8)
    """Episodes that one worker plays in a batch and writes as one shard."""
    agent: str = bits("")
    """Collect with the agent of the run at this URI instead of a random policy; that run's rollouts are used too."""
    action_noise: float = bits(0.5)
    """Exploration of an agent: standard deviation of the noise on C's output. Each episode draws its share of it."""
    weight_noise: float = bits(0.03)
    """The same for C's weights."""
    patience: int = bits(0)
    """End an episode after this many steps without reward; 0 never does."""
    curiosity: float = bits(0.0)
    """Weight of M's surprise (its NLL per dimension above the held-out value) in the rewards that M learns from."""

    def check(self) -> None:
        positive(self, "collect", "episodes", "steps", "unit_episodes")
        not_negative(self, "collect", "action_noise", "weight_noise", "patience", "curiosity")
        if self.episodes % self.unit_episodes:
            nearest = -(-self.episodes // self.unit_episodes) * self.unit_episodes
            raise UserError(
                f"--collect.episodes must be a multiple of --collect.unit-episodes {self.unit_episodes} (one shard),"
                f" got {self.episodes}: use {nearest}"
            )
        if self.curiosity and not self.agent:
            raise UserError("--collect.curiosity needs an agent, whose M can be surprised: add --collect.agent URI")


@dataclass(frozen=True)
class Training:
    """Fields that the trainings of V and M share."""

    steps: int = extent(100_000)
    """Updates. Can be raised later."""
    batch: int = bits(128)
    """Batch size: frames for V, sequences for M."""
    learning_rate: float = bits(1e-3)
    """Adam's learning rate."""
    decay_steps: int = bits(2_000)
    """From this step on the learning rate falls with the inverse square root of the step."""
    held_out: int = bits(20)
    """One episode in this many is held out for evaluation."""
    evaluate_steps: int = bits(500)
    """Updates between evaluations. The weights with the lowest held-out loss are the result."""
    device: Device = bits("auto")
    """auto uses a GPU if the cluster has one or can start one in time. cpu and cuda differ in their last bits."""
    precision: Precision = bits("float32")
    """bfloat16 computes the layers in half precision. auto is frozen as what this machine is fast at: bfloat16 on GPUs
    and processors with AMX or AVX-512 bf16, else float32. On a GPU, float32 means TF32 in products, convolutions and
    LSTMs: fp32 with 10 bits of mantissa."""
    threads: int = bits(2)
    """CPU threads of the training."""
    seed: int = bits(0)
    """Added to the run's seed for this stage only."""
    init: str = bits("")
    """Start from the weights of the run at this URI."""

    def check(self) -> None:
        name = type(self).__name__.lower()
        positive(self, name, "steps", "batch", "learning_rate", "decay_steps", "evaluate_steps")
        check_threads(f"{name}.threads", self.threads)
        not_negative(self, name, "seed")
        if self.held_out < 2:
            raise UserError(f"--{name}.held-out must be 2 or more, got {self.held_out}: nothing is left to train on")


@dataclass(frozen=True)
class Vision(Training):
    """V and its training."""

    kind: Literal["vae", "vaegan"] = bits("vae")
    """The paper's VAE, or the same network trained as a VAE-GAN."""
    z: int = bits(32)
    """Size of the latent vector z."""
    kl_weight: float = bits(1.0)
    """Weight of the KL term. At 1, small objects such as fireballs may be left out."""
    change_weight: float = bits(0.0)
    """Mean additional weight of pixels, in proportion to their difference from the episode's mean frame: for small
    things that move over a still background; 0 weighs all pixels alike."""
    frozen: bool = bits(False)
    """Use the V of `init` unchanged."""
    gamma: float = bits(0.1)
    """VAE-GAN: weight of the feature reconstruction loss relative to the GAN loss in the decoder's gradient."""
    gan_ramp: int = bits(500)
    """VAE-GAN: steps over which the GAN loss grows to its full weight."""

    def check(self) -> None:
        super().check()
        positive(self, "vision", "z", "kl_weight", "gamma", "gan_ramp")
        not_negative(self, "vision", "change_weight")
        if self.change_weight and self.kind != "vae":
            raise UserError("--vision.change-weight is for the VAE only: remove it, or use --vision.kind vae")
        if self.frozen and not self.init:
            raise UserError("--vision.frozen needs a run to take V from: add --vision.init URI")


@dataclass(frozen=True)
class Latents:
    """The frames encoded by V."""

    mirrored: bool = bits(False)
    """Encode each rollout also as its mirror image for M: twice the data where left and right are symmetric."""

    def check(self) -> None:
        pass


@dataclass(frozen=True)
class Memory(Training):
    """M and its training."""

    hidden: int = bits(256)
    """Units of the LSTM."""
    mixtures: int = bits(5)
    """Gaussians in the mixture for each dimension of z."""
    sequence: int = bits(999)
    """Length of a training sequence; longer episodes are cut."""
    reward: bool = bits(True)
    """Predict the reward."""
    done: bool = bits(False)
    """Predict the end of the episode."""
    next_action: bool = bits(False)
    """Predict the next action."""
    previous_done: bool = bits(False)
    """Use the previous done as an input, as the paper does in Doom."""
    clip: float = bits(1.0)
    """Gradients are clipped to this value."""
    reward_clip: float = bits(0.0)
    """Clip the rewards that M learns to this size; 0 does not. A rare -100 outweighs thousands of small rewards."""
    reward_scaled: bool = bits(False)
    """Divide the reward's part of the loss by the variance of the rewards seen, whatever their unit."""
    done_weight: float = bits(10.0)
    """Weight of steps that end the episode in the done loss."""

    def check(self) -> None:
        super().check()
        positive(self, "memory", "hidden", "mixtures", "sequence", "clip", "done_weight")
        not_negative(self, "memory", "reward_clip")


@dataclass(frozen=True)
class Controller:
    """C and its inputs."""

    inputs: Literal["z", "zh", "zhc"] = bits("zh")
    """z only, z and h (the paper's CarRacing), or also the cell state c (its Doom)."""
    one_pedal: bool = bits(False)
    """CarRacing: one output is gas where it is positive and brake where it is negative, instead of one for each."""
    layer: int = bits(0)
    """Units of a hidden layer; 0 is the linear C."""
    bias: bool = bits(True)
    """Whether C has a bias."""
    latent: Literal["mu", "z"] = bits("mu")
    """What C gets from V in the real game: the mean, or a sample z as in the paper."""
    precision: Precision = bits("float32")
    """Precision of V's convolutions while C plays, and of the matrix products in dreams; auto as in training."""

    def check(self) -> None:
        not_negative(self, "controller", "layer")


@dataclass(frozen=True)
class Evolve:
    """The evolution of C by CMA-ES."""

    where: Literal["real", "dream"] = bits("real")
    """Where candidates are evaluated: in the real game or in M's dream."""
    generations: int = extent(1_800)
    """Generations. Can be raised later."""
    population: int = bits(64)
    """Candidates per generation."""
    episodes: int = bits(16)
    """Episodes per candidate: the same tracks for all candidates, new ones each generation."""
    unit_episodes: int = bits(32)
    """Episodes played in a batch as one unit of work: 32 on a laptop, 4 on a large cluster."""
    hardness: float = bits(0.0)
    """Real game: use only episodes of at least this hardness. CarRacing: radians per tile of the sharpest bend; most
    tracks have 0.26."""
    again: float = bits(0.0)
    """Real game: fraction of episodes replayed, those with the largest score spread first."""
    sigma0: float = bits(0.1)
    """CMA-ES's initial step size. With `init`, `init_sigma` is used instead."""
    scaled: bool = bits(False)
    """Divide each weight's sigma by the size of its input: M's cell states may be a hundred times its h."""
    components: int = bits(0)
    """With `init`: search along this many principal components of C's inputs; 0 searches all weights."""
    cut: float = bits(0.0)
    """Clip each episode's score to this far from the candidates' median on it; 0 does not clip."""
    covariance: Literal["full", "diagonal"] = bits("full")
    """The covariance that CMA-ES learns: N x N numbers or N."""
    patience: int = bits(0)
    """End an episode after this many steps without reward (in training only); 0 never does."""
    validate_every: int = bits(10)
    """Generations between validations of the distribution's mean."""
    validation_episodes: int = bits(32)
    """Episodes of a validation, the same each time. The best-validated mean is the result."""
    plateau: int = bits(0)
    """End early, once the mean of this many validations is not above that of as many before them; 0 never does."""
    target: float = bits(0.0)
    """End early, once the mean of the last two validations reaches this score; 0 never does."""
    tau: float = bits(1.0)
    """Temperature of the dream."""
    dream_steps: int = bits(1_000)
    """Maximum steps of a dream."""
    dream_starts: Literal["first", "any", "own"] = bits("first")
    """Dreams start from first frames of real episodes, from any of their frames, or from any frame of this run's own
    rollouts."""
    dream_done: Literal["threshold", "sample", "never"] = bits("never")
    """M ends a dream when its done logit is above 0, with its probability, or never."""
    dream_lap: bool = bits(False)
    """End a dream once its rewards add up to a lap, as the game does."""
    device: Literal["cpu", "cuda"] = bits("cpu")
    """Where dreams are computed; on cuda with products in TF32. The real game always runs on CPUs."""
    seed: int = bits(0)
    """Added to the run's seed for this stage only."""
    init: str = bits("")
    """Start from the mean and sigma of the run at this URI."""
    init_sigma: float = bits(0.0)
    """With `init`: the initial sigma; 0 uses the other run's."""
    refit: bool = bits(False)
    """With `init`: first fit its C to this run's V and M, so that it acts as it did with its own."""

    def check(self) -> None:
        positive(self, "evolve", "generations", "episodes", "unit_episodes", "sigma0", "validate_every")
        positive(self, "evolve", "validation_episodes", "tau", "dream_steps")
        not_negative(self, "evolve", "patience", "plateau", "seed", "init_sigma", "components", "cut", "hardness")
        for name in ("sigma0", "init_sigma"):
            if getattr(self, name) > LARGEST_SIGMA:
                raise UserError(
                    f"--evolve.{name.replace('_', '-')} must be at most {LARGEST_SIGMA:g}, got {getattr(self, name)}"
                )
        if self.population < 4:
            raise UserError(f"--evolve.population must be 4 or more for CMA-ES, got {self.population}")
        if not 0 <= self.again < 1:
            raise UserError(f"--evolve.again must be in [0, 1), got {self.again}")
        if self.again and self.where == "dream":
            raise UserError("--evolve.again replays real episodes: remove it, or use --evolve.where real")
        for name in ("components", "init_sigma", "refit"):
            if getattr(self, name) and not self.init:
                raise UserError(f"--evolve.{name.replace('_', '-')} needs a run to start from: add --evolve.init URI")
        if self.components and self.scaled:
            raise UserError("--evolve.components and --evolve.scaled exclude each other: remove one")
        if self.device == "cuda" and self.where == "real":
            raise UserError("--evolve.device cuda is for dreams only: add --evolve.where dream, or remove it")


@dataclass(frozen=True)
class Score:
    """The score: whole episodes of the unmodified game on seeds that nothing else uses."""

    episodes: int = extent(100)
    """Test episodes. Can be raised later for a smaller error."""
    seed: int = bits(0)
    """Number of the first test episode."""
    unit_episodes: int = bits(4)
    """Episodes played in a batch as one unit of work."""

    def check(self) -> None:
        positive(self, "score", "episodes", "unit_episodes")
        if self.seed < 0 or self.seed + self.episodes > 2**29:
            raise UserError(f"--score.seed must be in [0, {2**29 - self.episodes}], got {self.seed}")


@dataclass(frozen=True)
class Rounds:
    """Iterative training: after the first round each round trains on data collected by the previous round's agent.

    Rounds after the first change other fields by flags such as --rounds.evolve.generations 30.
    """

    count: int = extent(3)
    """Number of rounds. Can be raised later."""
    fresh: bool = bits(False)
    """Start C's evolution from scratch in each round instead of from the previous round's C."""
    target: float = free(0.0)
    """Stop once a validation reaches this score; 0 never does."""
    env_steps: int = free(0)
    """Start no further round after this many steps of the real game; 0 is no limit."""
    max_episodes: int = bits(0)
    """Each round after the second doubles the episodes per candidate up to this many, and lowers sigma; 0 leaves both
    as they are."""
    overrides: Suppress[dict[str, Any]] = overrides(
        {
            "collect.episodes": 64,
            "vision.steps": 500,
            "memory.steps": 1_000,
            "evolve.generations": 60,
            "evolve.covariance": "full",
        }
    )
    """Fields that differ in the rounds after the first."""

    def check(self) -> None:
        positive(self, "rounds", "count")
        not_negative(self, "rounds", "env_steps", "max_episodes")
        if self.fresh and (self.overrides.get("evolve.init-sigma") or self.overrides.get("evolve.refit")):
            raise UserError(
                "--rounds.evolve.init-sigma and --rounds.evolve.refit need a C to continue from: remove them, or"
                " --rounds.fresh"
            )


@dataclass(frozen=True)
class Workers:
    """How work is carried out. These fields never change a result."""

    count: int = free(0)
    """Rollout workers; 0 uses every CPU of the cluster."""
    retries: int = free(3)
    """Attempts at a unit of work that raises an exception before the job fails."""
    unit_seconds: float = free(1800.0)
    """A worker without an answer for this long is restarted and its unit done elsewhere."""
    recycle_units: int = free(64)
    """A worker process is replaced after this many units, to bound memory leaks of games."""
    gpu_seconds: float = free(600.0)
    """Seconds that the device auto waits for a node with a GPU to start; then it is the CPU."""
    checkpoint_seconds: float = free(60.0)
    """Seconds between checkpoints of the trainings of V and M."""
    log_seconds: float = free(10.0)
    """Seconds between progress lines where there is no terminal."""

    def check(self) -> None:
        positive(self, "workers", "retries", "unit_seconds", "recycle_units", "checkpoint_seconds", "log_seconds")
        not_negative(self, "workers", "count", "gpu_seconds")


@dataclass(frozen=True)
class Config:
    """One run of World Models."""

    game: str = bits("car-racing")
    """car-racing, doom, or gym:ID for any other gymnasium environment with images."""
    seed: int = bits(1)
    """Seed of all randomness in the run."""
    threads: int = bits(1)
    """CPU threads of a rollout worker and of CMA-ES. Another number changes the order of additions."""
    collect: Collect = field(default_factory=Collect)
    vision: Vision = field(default_factory=Vision)
    latents: Latents = field(default_factory=Latents)
    memory: Memory = field(default_factory=Memory)
    controller: Controller = field(default_factory=Controller)
    evolve: Evolve = field(default_factory=Evolve)
    score: Score = field(default_factory=Score)
    rounds: Rounds = field(default_factory=Rounds)
    workers: Workers = field(default_factory=Workers)

    @property
    def uses_memory(self) -> bool:
        """Whether C needs M: as an input or as the game."""
        return self.controller.inputs != "z" or self.evolve.where == "dream"

    def check(self) -> "Config":
        """Itself, or a UserError that names the first wrong value and its cure."""
        self.check_values()
        self._check_game(load(self.game))
        return self

    def check_values(self) -> None:
        """The part of `check` that does not need the game, whose module may be anybody's."""
        check_types(with_overrides(self, self.rounds.overrides))
        check_types(self)
        check_threads("threads", self.threads)
        if not 1 <= self.seed < 2**31:
            raise UserError(f"--seed must be in [1, {2**31 - 1}], got {self.seed}")
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if dataclasses.is_dataclass(value):
                value.check()  # type: ignore[union-attr]
        self._check_between_sections()

    def _check_game(self, game: Game) -> None:
        if self.collect.policy not in game.explorations:
            raise UserError(
                f"--collect.policy must be {' or '.join(game.explorations)} for {self.game}, got {self.collect.policy}"
            )
        if self.latents.mirrored and not game.mirror:
            raise UserError(f"{self.game} is not mirror-symmetric: remove --latents.mirrored")
        if self.controller.one_pedal and not game.pedals:
            raise UserError(f"{self.game} has no pedals: remove --controller.one-pedal")
        if self.evolve.dream_lap and not game.lap:
            raise UserError(f"{self.game} has no laps: remove --evolve.dream-lap")

    def _check_between_sections(self) -> None:
        evolve, controller = self.evolve, self.controller
        if evolve.where == "dream" and evolve.dream_done != "never" and not self.memory.done:
            raise UserError(
                f"--evolve.dream-done {evolve.dream_done} needs an M that predicts the end: add --memory.done, or use"
                " --evolve.dream-done never"
            )
        if evolve.scaled and controller.inputs == "z":
            raise UserError("--evolve.scaled needs inputs of several sizes: remove it, or use --controller.inputs zh")
        for name in ("components", "refit"):
            if getattr(evolve, name) and controller.layer:
                raise UserError(f"--evolve.{name} needs a linear C: remove it, or use --controller.layer 0")
