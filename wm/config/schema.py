"""What a run is made with: frozen dataclasses, one section a stage, of fields that know their kind (`wm/fields.py`)."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from wm.config.fields import bits, extent, flag, free, of_kind, positive
from wm.errors import UserError

FORMAT = 1  # of everything in a run; another number is another format, never guessed at

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Collect:
    """Rollouts in the real game: of a random policy, or of an agent that drives with some noise."""

    episodes: int = extent(10_000)
    """Episodes to collect; raise it later to add more."""
    steps: int = bits(1000)
    """Steps after which an episode is cut off."""
    policy: str = bits("mixture")
    """mixture, or a part of it: CarRacing's brownian, held, mild; others' held, independent; Doom's long, swinging."""
    unit_episodes: int = bits(8)
    """Episodes that one worker plays side by side and writes as one shard."""
    agent: str = bits("")
    """Let the agent of the run at this URI drive, not the random policy; its run's rollouts count here as well."""
    action_noise: float = bits(0.5)
    """How an agent explores: deviation added to C's output, of which each episode draws its share."""
    weight_noise: float = bits(0.03)
    """The same for C's weights."""
    patience: int = bits(0)
    """Give an episode up after so many steps without reward: it goes nowhere any more; 0 never does."""
    curiosity: float = bits(0.0)
    """Weight of an agent's surprise, M's NLL a dimension above its held-out one, in the rewards that M learns from."""

    def check(self) -> None:
        positive(self, "collect", "episodes", "steps", "unit_episodes")
        if not (self.action_noise >= 0 and self.weight_noise >= 0 and self.curiosity >= 0):
            raise UserError("--collect.action-noise, --collect.weight-noise and --collect.curiosity can't be negative")
        if self.patience < 0:
            raise UserError(f"--collect.patience {self.patience} is negative: say 0 to play whole episodes")
        if self.episodes % self.unit_episodes:
            nearest = -(-self.episodes // self.unit_episodes) * self.unit_episodes
            raise UserError(
                f"--collect.episodes {self.episodes} is no multiple of --collect.unit-episodes"
                f" {self.unit_episodes} (one shard): say {nearest}"
            )


@dataclass(frozen=True)
class Training:
    """What the trainings of V and M have in common."""

    steps: int = extent(100_000)
    """Updates to make; raise it later to train further."""
    batch: int = bits(128)
    """What one update averages over: frames for V, sequences for M."""
    learning_rate: float = bits(1e-3)
    """Adam's step size."""
    decay_steps: int = bits(2_000)
    """From this step on the step size falls as one over the square root of the step."""
    held_out: int = bits(20)
    """One episode in so many is kept out of training and measures it."""
    evaluate_steps: int = bits(500)
    """Updates between measurements on the held-out episodes; the best weights among them are the result."""
    patience: int = bits(0)
    """Stop after so many measurements without a new best; 0 never does."""
    device: Device = bits("auto")
    """auto takes a GPU where the cluster has one; cpu and cuda differ in their last bits."""
    precision: Precision = bits("float32")
    """bfloat16 computes the layers in half precision: faster on GPUs and on CPUs that know it."""
    threads: int = bits(2)
    """CPU threads of the training."""
    seed: int = bits(0)
    """Added to the run's seed for this stage alone."""
    init: str = bits("")
    """Start from the weights of the run at this URI."""
    checkpoint_seconds: float = free(60.0)
    """Seconds between checkpoints."""

    def check(self) -> None:
        name = type(self).__name__.lower()
        positive(
            self,
            name,
            "steps",
            "batch",
            "learning_rate",
            "decay_steps",
            "evaluate_steps",
            "threads",
            "checkpoint_seconds",
        )
        if self.held_out < 2:
            raise UserError(f"--{name}.held-out {self.held_out} leaves nothing to train on: say 2 or more")
        if self.seed < 0 or self.patience < 0:
            raise UserError(f"--{name}.seed and --{name}.patience can't be negative")


@dataclass(frozen=True)
class Vision(Training):
    """V, and how it is trained."""

    kind: Literal["vae", "vaegan"] = bits("vae")
    """The paper's variational autoencoder, or the same network trained as a VAE-GAN (wm/vaegan.py)."""
    z: int = bits(32)
    """Numbers that a frame is reduced to."""
    kl_weight: float = bits(1.0)
    """Weight of KL beside the squared error: at 1, small things such as fireballs are cheaper left out."""
    frozen: bool = bits(False)
    """Take over the V of `init` as it is."""
    gamma: float = bits(0.1)
    """vaegan: weight of the likeness of features beside the GAN loss in the decoder's gradient."""
    gan_layer: int = bits(2)
    """vaegan: the convolution of the discriminator, 1 to 4, whose output are the features."""
    gan_ramp: int = bits(500)
    """vaegan: steps in which the GAN loss grows to its full weight."""

    def check(self) -> None:
        super().check()
        positive(self, "vision", "z", "kl_weight", "gamma", "gan_ramp")
        if self.frozen and not self.init:
            raise UserError("--vision.frozen needs the run whose V to take over: say --vision.init URI")
        if self.gan_layer not in range(1, 5):
            raise UserError(f"--vision.gan-layer {self.gan_layer} is no layer of the discriminator: say 1, 2, 3 or 4")
        if self.kind == "vaegan" and self.patience:
            raise UserError(
                "--vision.patience waits for a loss to fall, and a VAE-GAN has none that says how good it is: leave it"
                " out"
            )


@dataclass(frozen=True)
class Latents:
    """Every frame as V sees it."""

    batch: int = bits(64)
    """Frames encoded at once."""
    mirrored: bool = bits(False)
    """Encode each rollout also as in a mirror, for M to learn from: twice the data where left and right are alike."""

    def check(self) -> None:
        positive(self, "latents", "batch")


@dataclass(frozen=True)
class Memory(Training):
    """M, and how it is trained."""

    hidden: int = bits(256)
    """Units of the LSTM."""
    mixtures: int = bits(5)
    """Gaussians in the mixture of each dimension of z."""
    sequence: int = bits(999)
    """Steps of one training sequence; longer episodes are cut."""
    reward: bool = bits(True)
    """Predict the reward, too."""
    done: bool = bits(False)
    """Predict the end of the episode, too."""
    next_action: bool = bits(False)
    """Predict the next action, too."""
    previous_done: bool = bits(False)
    """Take the previous done as an input, as the paper does in Doom."""
    dropout: float = bits(0.0)
    """Share of h that the heads don't see in training."""
    own: float = bits(0.0)
    """Share of the z that M reads in training which it drew itself, as in dreams; up to twice that in a sequence."""
    clip: float = bits(1.0)
    """Gradients are cut to this size, each number by itself."""
    reward_weight: float = bits(1.0)
    """Weight of the reward in the loss."""
    reward_clip: float = bits(0.0)
    """Learn rewards cut to this size; 0 is as they are, where a rare one of -100 outweighs thousands of small ones."""
    done_weight: float = bits(10.0)
    """How much more a step that ends the episode counts than one that doesn't."""

    def check(self) -> None:
        super().check()
        positive(self, "memory", "hidden", "mixtures", "sequence", "clip", "reward_weight", "done_weight")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--memory.dropout {self.dropout} is no share: say 0 or more and less than 1")
        if not self.reward_clip >= 0:
            raise UserError(f"--memory.reward-clip {self.reward_clip} can't be negative")
        if not 0 <= self.own <= 0.5:
            raise UserError(f"--memory.own {self.own} is out of range: say 0 to 0.5")


@dataclass(frozen=True)
class Controller:
    """C, and what it sees."""

    inputs: Literal["z", "zh", "zhc"] = bits("zh")
    """z alone, z and h (the paper's CarRacing), or also the cell state c (its Doom)."""
    layer: int = bits(0)
    """Units of a hidden layer; 0 is the linear C."""
    bias: bool = bits(True)
    """Whether C adds a constant to each action."""
    latent: Literal["mu", "z"] = bits("mu")
    """What V hands on in the real game: its mean, or z drawn around it as in the paper."""

    def check(self) -> None:
        if self.layer < 0:
            raise UserError(f"--controller.layer {self.layer} is negative: say 0 for a linear C")


@dataclass(frozen=True)
class Evolve:
    """C's evolution by CMA-ES."""

    where: Literal["real", "dream"] = bits("real")
    """Where candidates are scored: in the real game or in the dream that M generates."""
    generations: int = extent(1_800)
    """Generations; raise it later to evolve further."""
    population: int = bits(64)
    """Candidates in a generation."""
    episodes: int = bits(16)
    """Episodes that a candidate's score is the mean of: the same tracks for all, fresh ones each generation."""
    hardness: float = bits(0.0)
    """In the real game, learn on episodes at least so hard. CarRacing: radians a tile of the sharpest bend; most have
    0.26."""
    again: float = bits(0.0)
    """In the real game, share of a generation's episodes that are met again: those that told candidates apart best."""
    unit_episodes: int = bits(32)
    """Episodes played side by side as one unit of work: 32 on a laptop, 4 on a large cluster."""
    sigma0: float = bits(0.1)
    """How far around the start CMA-ES looks at first; with `init`, `init_sigma` counts instead."""
    sigma_decay: float = bits(1.0)
    """Factor on sigma after each generation; CMA-ES's own steps are small where there are so many numbers."""
    mean_rate: float = bits(1.0)
    """How much of the way to its best candidates' mean the distribution moves: of small steps less is luck."""
    scaled: bool = bits(False)
    """Divide each weight's sigma by the size of what it weighs: M's cell states may be a hundred times its h."""
    components: int = bits(0)
    """With `init`: move C along so many principal components of what it sees as it drives; 0 moves all its weights."""
    cut: float = bits(0.0)
    """Let no episode count by more than this above or below the candidates' median on it; 0 lets all count whole."""
    covariance: Literal["full", "diagonal"] = bits("full")
    """What CMA-ES learns of the landscape: N x N numbers or N."""
    patience: int = bits(0)
    """Give an episode up after so many steps without reward (in training alone); 0 never does."""
    steps: int = bits(0)
    """Cut episodes of the real game off after so many steps (in training alone); 0 plays whole ones."""
    validate_every: int = bits(10)
    """Generations between validations of the distribution's mean."""
    validation_episodes: int = bits(32)
    """Episodes of a validation, the same each time, whole; the best-validated mean is the result."""
    tau: float = bits(1.0)
    """Temperature of the dream."""
    tau_high: float = bits(0.0)
    """Each dream draws its temperature between tau and this; 0 is tau for all."""
    dream_steps: int = bits(1_000)
    """Steps after which a dream ends."""
    dream_starts: Literal["first", "any", "own"] = bits("first")
    """Dreams begin with first frames of real episodes, or amid any, or amid those of the last round's driver alone."""
    dream_done: Literal["threshold", "sample", "never"] = bits("never")
    """When M ends a dream: its done logit above 0, with its probability, or not at all."""
    dream_lap: bool = bits(False)
    """A dream ends when it has earned what a lap is worth, as the game does: or else pace pays for crashes."""
    device: Literal["cpu", "cuda"] = bits("cpu")
    """Where dreams are computed, on CPUs or on GPUs; games are played on CPUs."""
    dream_dropout: float = bits(0.0)
    """Dropout on the h that M's heads see in the dream."""
    seed: int = bits(0)
    """Added to the run's seed for this stage alone."""
    init: str = bits("")
    """Start from the mean and sigma of the run at this URI."""
    init_sigma: float = bits(0.0)
    """With `init`: begin with this sigma; 0 is that of the other run."""
    refit: bool = bits(False)
    """With `init`: fit its C to this run's V and M first, so that it does in the rollouts what it did with its own."""

    def check(self) -> None:
        positive(self, "evolve", "generations", "episodes", "unit_episodes", "sigma0", "validate_every")
        positive(self, "evolve", "validation_episodes", "tau", "dream_steps")
        if self.population < 4:
            raise UserError(f"--evolve.population {self.population} is too small for CMA-ES: say 4 or more")
        if self.patience < 0 or self.steps < 0 or self.seed < 0 or self.init_sigma < 0:
            raise UserError("--evolve.patience, steps, seed and init-sigma can't be negative")
        if self.components < 0 or self.cut < 0 or self.hardness < 0:
            raise UserError("--evolve.components, cut and hardness can't be negative: say 0 for none")
        if not 0 <= self.again < 1:
            raise UserError(f"--evolve.again {self.again} is no share: say 0 or more and less than 1")
        if self.again and self.where == "dream":
            raise UserError("no dream can be met again: leave --evolve.again out, or say --evolve.where real")
        if self.components and not self.init:
            raise UserError(
                "components are of what a C sees that drives: name its run by --evolve.init, or leave them out"
            )
        if self.components and self.scaled:
            raise UserError("components are of one size already: leave --evolve.scaled out, or --evolve.components")
        if self.init_sigma and not self.init:
            raise UserError("--evolve.init-sigma goes with --evolve.init: say --evolve.sigma0 for a start from nothing")
        if self.refit and not self.init:
            raise UserError(
                "--evolve.refit fits another run's C: name it by --evolve.init, or leave --evolve.refit out"
            )
        if not 0 < self.sigma_decay <= 1:
            raise UserError(f"--evolve.sigma-decay {self.sigma_decay} is out of range: say more than 0 and 1 at most")
        if not 0 < self.mean_rate <= 1:
            raise UserError(f"--evolve.mean-rate {self.mean_rate} is out of range: say more than 0 and 1 at most")
        if self.tau_high and not self.tau_high >= self.tau:
            raise UserError(
                f"--evolve.tau-high {self.tau_high} is below --evolve.tau {self.tau}: leave it out, or raise it"
            )
        if self.device == "cuda" and self.where == "real":
            raise UserError("--evolve.device cuda is for dreams alone: say --evolve.where dream, too, or leave it out")
        if not 0 <= self.dream_dropout < 1:
            raise UserError(f"--evolve.dream-dropout {self.dream_dropout} is no share: say 0 or more and less than 1")


@dataclass(frozen=True)
class Score:
    """The result: whole episodes of the unmodified game, on seeds that nothing else has seen."""

    episodes: int = extent(100)
    """Episodes to play; raise it later for a smaller error."""
    seed: int = bits(0)
    """Number of the first test episode."""
    unit_episodes: int = bits(4)
    """Episodes played side by side as one unit of work."""

    def check(self) -> None:
        positive(self, "score", "episodes", "unit_episodes")
        if self.seed < 0 or self.seed + self.episodes > 2**29:
            raise UserError(f"--score.seed {self.seed} is out of range: say 0 or more")


@dataclass(frozen=True)
class Rounds:
    """Rounds of the agent's own data: the first is the pipeline as it is; what is said here goes for the others."""

    count: int = extent(3)
    """Rounds in all; raise it later for more."""
    episodes: int = bits(64)
    """Rollouts that the agent of the round before collects, beside all earlier ones."""
    vision_steps: int = bits(500)
    """Updates that refine the V of the round before; 0 takes it over as it is."""
    memory_steps: int = bits(1_000)
    """Updates of M, which goes on from that of the round before."""
    memory_learning_rate: float = bits(0.0)
    """Adam's step size for these updates; 0 is that of the first round, which may undo more than so few mend."""
    generations: int = extent(60)
    """Generations of C; raise it later to take the last round further."""
    sigma: float = bits(0.0)
    """How far around its mean CMA-ES looks again when a round begins; 0 goes on with the last round's sigma."""
    covariance: Literal["full", "diagonal"] = bits("full")
    """What CMA-ES learns of the landscape around a C that goes on: N x N numbers or N."""
    refit: bool = bits(False)
    """Fit C to the new V and M before it goes on, so that it does with them what it did with those before."""
    fresh: bool = bits(False)
    """Let C begin anew in each round, not from the last round's distribution."""
    target: float = free(0.0)
    """Stop once the mean has validated so high; 0 never does."""
    env_steps: int = free(0)
    """Begin no further round once so many steps of the real game are spent; 0 knows no limit."""

    def check(self) -> None:
        positive(self, "rounds", "count", "episodes", "memory_steps", "generations")
        for name in ("vision_steps", "memory_learning_rate", "sigma", "env_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"--{flag('rounds', name)} can't be negative: say 0 or more")
        if (self.sigma or self.refit) and self.fresh:
            raise UserError("--rounds.sigma and refit are for a C that goes on: leave them out, or --rounds.fresh")


@dataclass(frozen=True)
class Polish:
    """After the last round: with V and M as they are, the best round's C goes on along what it steers by."""

    generations: int = extent(0)
    """Generations; 0 leaves it out."""
    components: int = bits(24)
    """Principal components of what C sees as it drives, that each action is moved along."""
    population: int = bits(24)
    """Candidates in a generation."""
    episodes: int = bits(8)
    """Episodes that a candidate's score is the mean of."""
    cut: float = bits(100.0)
    """Let no episode count by more than this above or below the candidates' median on it; 0 lets all count whole."""
    hardness: float = bits(0.0)
    """In the real game, learn on episodes at least so hard."""
    sigma: float = bits(0.011)
    """How far around its mean CMA-ES looks at first."""

    def check(self) -> None:
        positive(self, "polish", "components", "sigma")
        if self.generations < 0:
            raise UserError(f"--polish.generations {self.generations} can't be negative: say 0 for none")


@dataclass(frozen=True)
class Workers:
    """How the work is carried out. Nothing here changes a result."""

    count: int = free(0)
    """Rollout workers; 0 takes every CPU that the cluster has."""
    retries: int = free(3)
    """How often a unit of work that raises an exception is tried before the job fails."""
    unit_seconds: float = free(1800.0)
    """A worker silent for so long is taken for hung: it is restarted and its unit done elsewhere."""
    recycle_units: int = free(64)
    """A worker process is replaced after so many units, so that what a game leaks stays bounded."""
    log_seconds: float = free(10.0)
    """Seconds between progress lines where there is no terminal."""

    def check(self) -> None:
        positive(self, "workers", "retries", "unit_seconds", "recycle_units", "log_seconds")
        if self.count < 0:
            raise UserError(f"--workers.count {self.count} is negative: say 0 for every CPU, or how many workers")


@dataclass(frozen=True)
class Config:
    """One run of World Models."""

    game: str = bits("car-racing")
    """The game: car-racing, doom, or gym:ID for any other environment of gymnasium that has pictures."""
    seed: int = bits(1)
    """All randomness of the run follows from it."""
    threads: int = bits(1)
    """CPU threads of a rollout worker and of CMA's driver: another number adds floats in another order."""
    collect: Collect = field(default_factory=Collect)
    vision: Vision = field(default_factory=Vision)
    latents: Latents = field(default_factory=Latents)
    memory: Memory = field(default_factory=Memory)
    controller: Controller = field(default_factory=Controller)
    evolve: Evolve = field(default_factory=Evolve)
    score: Score = field(default_factory=Score)
    rounds: Rounds = field(default_factory=Rounds)
    polish: Polish = field(default_factory=Polish)
    workers: Workers = field(default_factory=Workers)

    def check(self) -> "Config":
        """Itself, or a Mistake that names the first wrong value and its cure."""
        from wm.envs import load

        kinds = load(self.game).explorations
        positive(self, "", "threads")
        if not 1 <= self.seed < 2**31:
            raise UserError(f"--seed {self.seed} is out of range: say 1 to {2**31 - 1}")
        if self.collect.policy not in kinds:
            raise UserError(
                f"{self.game} has no random policy {self.collect.policy!r}: say --collect.policy {' or '.join(kinds)}"
            )
        if self.latents.mirrored and not load(self.game).mirror:
            raise UserError(f"{self.game} is another game in a mirror: leave --latents.mirrored out")
        if self.evolve.dream_lap and not load(self.game).lap:
            raise UserError(f"{self.game} has no laps: leave --evolve.dream-lap out")
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if dataclasses.is_dataclass(value):
                value.check()  # type: ignore[union-attr]
        if self.evolve.where == "dream" and self.evolve.dream_done != "never" and not self.memory.done:
            raise UserError(
                f"--evolve.dream-done {self.evolve.dream_done} needs an M that predicts the end: say --memory.done, or"
                " --evolve.dream-done never"
            )
        if self.evolve.scaled and self.controller.inputs == "z":
            raise UserError("z is of one size: leave --evolve.scaled out, or let C see more by --controller.inputs zh")
        if self.evolve.components and self.controller.layer:
            raise UserError("--evolve.components move a linear C: leave them out, or say --controller.layer 0")
        if self.evolve.refit and self.controller.layer:
            raise UserError(
                "only a linear C can be fitted: leave --evolve.refit out, in rounds say --rounds.no-refit, or say"
                " --controller.layer 0"
            )
        return self


def completed(fields: dict[str, Any]) -> dict[str, Any]:
    """What a manifest records, with the defaults of fields of its sections that came later."""
    sections = {path.partition(".")[0] for path in fields if "." in path}
    later = {
        path: value
        for path, value in of_kind(Config(), "bits").items()
        if "." not in path or path.partition(".")[0] in sections
    }
    return later | fields
