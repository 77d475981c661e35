"""The presets: configs to start from."""

from dataclasses import replace

from wm.config.schema import Collect, Config, Controller, Evolve, Latents, Memory, Rounds, Score, Vision

PAPER = Config(
    vision=Vision(steps=500_000, decay_steps=50_000, evaluate_steps=5_000, precision="bfloat16"),
    memory=Memory(steps=40_000, batch=100, decay_steps=10_000, evaluate_steps=500),
    controller=Controller(latent="z"),
    evolve=Evolve(unit_episodes=4),
)

# CarRacing in the real game, sized for one machine; then a second round on the first agent's driving.
SMALL = replace(
    PAPER,
    # Episodes end off the road: more tracks, and more road in the frames.
    collect=replace(PAPER.collect, episodes=320, steps=700, patience=100),
    # Many small updates and a low KL weight keep details.
    vision=Vision(kl_weight=0.1, batch=32, steps=4_800, decay_steps=1_000, evaluate_steps=600, precision="auto"),
    # Without the clip, the few rewards of -100 for leaving the playfield are all that the reward head learns.
    memory=Memory(
        steps=3_000,
        batch=16,
        sequence=128,
        learning_rate=0.003,
        decay_steps=1_500,
        reward_clip=10.0,
        evaluate_steps=200,
        precision="auto",
    ),
    controller=Controller(precision="auto"),
    evolve=Evolve(
        generations=25,
        population=32,
        episodes=2,
        unit_episodes=16,
        sigma0=0.05,
        covariance="diagonal",  # learns faster from scratch
        patience=100,
        validate_every=5,
    ),
    score=Score(episodes=100),
    rounds=Rounds(
        count=2,
        overrides={
            "collect.episodes": 128,
            "vision.steps": 4_800,
            "memory.steps": 2_000,
            "memory.learning-rate": 0.002,
            "evolve.generations": 25,
            "evolve.init-sigma": 0.03,
            "evolve.covariance": "full",
        },
    ),
)

# CarRacing learned in dreams only, in rounds on the agent's own driving.
DREAM = Config(
    collect=Collect(episodes=320, steps=700, patience=100, action_noise=0.3, weight_noise=0.02),
    vision=SMALL.vision,
    memory=SMALL.memory,
    # C must see samples in the game as it does in the dream; with mu it brakes less.
    controller=Controller(latent="z", precision="auto"),
    # A dream is as long as a lap and no longer, so that a crash costs what it does in the game.
    evolve=Evolve(
        where="dream",
        generations=30,
        population=32,
        episodes=16,
        unit_episodes=256,
        sigma0=0.03,
        tau=1.15,
        dream_lap=True,
        validate_every=30,
    ),
    score=Score(episodes=100),
    rounds=Rounds(
        count=8,
        env_steps=1_800_000,  # the round that passes it stays below two million
        overrides={
            "collect.episodes": 192,
            "vision.steps": 1_500,
            "memory.steps": 3_000,
            "memory.learning-rate": 0.002,
            "evolve.generations": 30,
            "evolve.init-sigma": 0.03,
            "evolve.covariance": "full",
        },
    ),
)

DEMO = replace(
    SMALL,
    collect=replace(SMALL.collect, episodes=128, steps=500),
    vision=Vision(batch=32, steps=500, decay_steps=200, evaluate_steps=100, precision="auto"),
    # With one pedal C learns to brake; with two it hardly does, and drives slowly instead.
    controller=Controller(one_pedal=True, precision="auto"),
    # With a quarter of the h, C learns from fewer episodes.
    memory=Memory(
        steps=400, batch=16, sequence=128, hidden=64, decay_steps=1_000, evaluate_steps=100, precision="auto"
    ),
    evolve=replace(SMALL.evolve, generations=20, population=16, sigma0=0.06, validation_episodes=16),
    score=Score(episodes=12, unit_episodes=2),
    rounds=Rounds(
        count=2,
        overrides={
            "collect.episodes": 64,
            "vision.steps": 400,
            "memory.steps": 400,
            "evolve.generations": 15,
            "evolve.init-sigma": 0.03,
            "evolve.covariance": "full",
        },
    ),
)

# The best recipe from scratch with one command: all weights of C until it drives, then in each round V and M on its own
# rollouts and C along principal components of its inputs, for as long as its validations rise.
BEST = replace(
    DEMO,
    evolve=replace(DEMO.evolve, generations=60, validate_every=2, validation_episodes=32, plateau=4, target=700.0),
    score=SMALL.score,
    rounds=Rounds(
        count=6,
        env_steps=5_500_000,  # leaves about 12 generations of 24 x 8 before eight million
        max_episodes=8,
        overrides={
            "collect.episodes": 128,
            "vision.steps": 3_000,
            "vision.decay-steps": 1_000,
            "vision.evaluate-steps": 600,
            "memory.steps": 2_000,
            "memory.learning-rate": 0.002,
            "memory.decay-steps": 1_500,
            "evolve.generations": 30,
            "evolve.population": 24,
            "evolve.episodes": 4,
            "evolve.components": 24,
            # A full covariance of 75 directions hardly learns in 30 generations; components are uncorrelated anyway.
            "evolve.covariance": "diagonal",
            "evolve.init-sigma": 0.025,
            "evolve.refit": True,
            "evolve.cut": 200.0,
            "evolve.hardness": 0.26,
            "evolve.validate-every": 1,
            "evolve.plateau": 5,
            "evolve.target": 0.0,
        },
    ),
)

TINY = replace(
    DEMO,
    collect=replace(DEMO.collect, episodes=4, steps=40, unit_episodes=2),
    vision=replace(DEMO.vision, steps=6, batch=16, evaluate_steps=3, threads=1, precision="float32"),
    memory=replace(
        DEMO.memory, steps=6, batch=4, sequence=16, hidden=32, evaluate_steps=3, threads=1, precision="float32"
    ),
    controller=Controller(),
    evolve=replace(
        DEMO.evolve, generations=3, population=4, unit_episodes=4, patience=20, validate_every=2, validation_episodes=2
    ),
    score=Score(episodes=2, unit_episodes=1),
    rounds=Rounds(
        count=2,
        overrides={
            "collect.episodes": 2,
            "vision.steps": 3,
            "memory.steps": 3,
            "evolve.generations": 2,
            "evolve.refit": True,
            "evolve.covariance": "full",
        },
    ),
)

# Pictures and rewards from elsewhere: nothing is known of the game, so no patience, and no unit of its rewards.
ANY_GAME = Config(
    game="gym:LunarLander-v3?skip=4&stack=3",
    collect=Collect(episodes=160, steps=1_000),
    vision=Vision(kl_weight=0.1, batch=16, steps=4_000, decay_steps=1_000, evaluate_steps=500, change_weight=3.0),
    memory=Memory(
        steps=1_500,
        batch=16,
        sequence=128,
        learning_rate=0.003,
        decay_steps=500,
        reward_scaled=True,
        done=True,
        evaluate_steps=250,
    ),
    evolve=Evolve(
        generations=60,
        population=24,
        episodes=4,
        unit_episodes=16,
        covariance="diagonal",
        validate_every=5,
    ),
    score=Score(episodes=50),
    rounds=Rounds(
        count=2,
        overrides={
            "collect.episodes": 96,
            "vision.steps": 2_000,
            "memory.steps": 1_000,
            "evolve.generations": 60,
            "evolve.covariance": "diagonal",
        },
    ),
)

DOOM = Config(
    game="doom",
    collect=Collect(steps=2_100),
    vision=replace(PAPER.vision, z=64),
    memory=replace(PAPER.memory, hidden=512, sequence=500, reward=False, done=True, previous_done=True),
    controller=Controller(inputs="zhc", bias=False, latent="z"),
    evolve=Evolve(where="dream", unit_episodes=64, tau=1.15, dream_steps=2_100, dream_done="threshold"),
)

DOOM_SMALL = replace(
    DOOM,
    collect=replace(DOOM.collect, episodes=4_000),
    # Many small updates and a low KL weight: otherwise V leaves out the fireballs.
    vision=Vision(
        z=64, kl_weight=0.1, batch=32, steps=12_000, decay_steps=4_000, evaluate_steps=1_000, precision="auto"
    ),
    latents=Latents(mirrored=True),
    # With the few deaths in 1,200 rollouts M overfits. With the paper's learning rate, so few updates are not enough.
    memory=replace(
        DOOM.memory,
        hidden=256,
        steps=8_000,
        batch=16,
        sequence=256,
        learning_rate=0.006,
        decay_steps=1_000,
        evaluate_steps=500,
        precision="auto",
    ),
    controller=replace(DOOM.controller, precision="auto"),
    # Many short dreams from any frame: all candidates meet the same fireballs, and no batch waits for long dreams.
    evolve=replace(
        DOOM.evolve,
        generations=60,
        population=32,
        episodes=64,
        unit_episodes=512,
        scaled=True,
        tau=1.0,
        dream_starts="own",
        dream_steps=300,
        validate_every=20,
        validation_episodes=64,
    ),
    # Random play ends early, so the first dream is too easy for long lives; C's own rollouts correct M.
    rounds=Rounds(
        count=3,
        fresh=True,
        overrides={
            "collect.episodes": 296,
            "vision.frozen": True,
            "memory.steps": 2_000,
            "memory.learning-rate": 0.003,
            "evolve.generations": 60,
        },
    ),
)

DOOM_TINY = replace(
    DOOM,
    collect=replace(TINY.collect, steps=60),
    latents=Latents(mirrored=True),
    vision=replace(TINY.vision, z=64),
    memory=replace(
        DOOM.memory, steps=6, batch=4, sequence=32, hidden=32, decay_steps=1_000, evaluate_steps=3, threads=1
    ),
    evolve=replace(
        DOOM.evolve,
        generations=2,
        population=4,
        episodes=2,
        unit_episodes=4,
        dream_steps=32,
        validate_every=2,
        validation_episodes=1,
    ),
    score=Score(episodes=2, unit_episodes=1),
    rounds=TINY.rounds,
)

PRESETS: dict[str, Config] = {
    "car-racing": PAPER,  # the paper's scale: a cluster, days
    "car-racing-small": SMALL,  # one machine, about an hour
    "car-racing-best": BEST,  # one machine, hours, with jobs.iterate
    "car-racing-dream": DREAM,  # one machine, some hours, with jobs.iterate
    "demo": DEMO,  # one machine, minutes
    "any-game": ANY_GAME,  # a game of one's own, under an hour on one machine
    "tiny": TINY,  # seconds: checks that everything runs, learns nothing
    "doom": DOOM,  # the paper's scale
    "doom-small": DOOM_SMALL,  # one machine, under two hours
    "doom-tiny": DOOM_TINY,  # seconds, like tiny
}
