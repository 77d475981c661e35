"""The presets: configs worth starting from, each a value."""

from dataclasses import replace

from wm.config.schema import Collect, Config, Controller, Evolve, Latents, Memory, Polish, Rounds, Score, Vision

PAPER = Config(
    vision=Vision(steps=500_000, decay_steps=50_000, evaluate_steps=5_000, precision="bfloat16"),
    memory=Memory(steps=40_000, batch=100, decay_steps=10_000, evaluate_steps=500),
    controller=Controller(latent="z"),
    evolve=Evolve(unit_episodes=4),
)

# CarRacing in the game, on what one machine can spare: then once more, on what the first C has driven.
SMALL = replace(
    PAPER,
    collect=replace(PAPER.collect, episodes=160, steps=700),
    # Many small updates, and details cheap to keep.
    vision=Vision(kl_weight=0.1, batch=32, steps=4_800, decay_steps=1_000, evaluate_steps=600),
    # Uncut, the few -100 of who leaves the playfield are all that M's reward head learns of.
    memory=Memory(
        steps=3_000,
        batch=16,
        sequence=128,
        learning_rate=0.003,
        decay_steps=1_500,
        reward_clip=10.0,
        evaluate_steps=200,
    ),
    controller=Controller(),
    evolve=Evolve(
        generations=25,
        population=32,
        episodes=2,
        unit_episodes=16,
        sigma0=0.03,
        patience=100,
        validate_every=5,
    ),
    score=Score(episodes=100),
    rounds=Rounds(
        count=2,
        episodes=128,
        vision_steps=4_800,
        memory_steps=2_000,
        memory_learning_rate=0.002,
        generations=25,
        sigma=0.03,
    ),
    polish=Polish(hardness=0.26),
)

# What was found best, from nothing and in one go.
BEST = replace(SMALL, polish=replace(SMALL.polish, generations=15))

# C learns in dreams alone, of rounds of its own driving.
DREAM = Config(
    collect=Collect(episodes=320, steps=700, patience=100, action_noise=0.3, weight_noise=0.02),
    vision=SMALL.vision,
    memory=SMALL.memory,
    controller=Controller(latent="z"),  # drawn in the game as in the dream, or else the dream's C brakes less here
    # As long as a lap and no longer: what a crash costs has to be in the dream, and so has the end of the road.
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
        episodes=192,
        vision_steps=1_500,
        memory_steps=3_000,
        memory_learning_rate=0.002,
        generations=30,
        sigma=0.03,
        env_steps=1_800_000,  # the round that passes it stays below two million
    ),
)

DEMO = replace(
    SMALL,
    collect=replace(SMALL.collect, episodes=48, steps=500),
    # Of so few rollouts, many small updates would learn by heart.
    vision=Vision(steps=400, decay_steps=1_000, evaluate_steps=100),
    memory=Memory(steps=400, batch=16, sequence=128, decay_steps=1_000, evaluate_steps=100),
    evolve=replace(SMALL.evolve, generations=10, population=16, validation_episodes=8),
    score=Score(episodes=16),
    rounds=Rounds(count=2, episodes=48, vision_steps=400, memory_steps=400, generations=10, sigma=0.03),
)

TINY = replace(
    DEMO,
    collect=replace(DEMO.collect, episodes=4, steps=40, unit_episodes=2),
    vision=replace(DEMO.vision, steps=6, batch=16, evaluate_steps=3, threads=1),
    memory=replace(DEMO.memory, steps=6, batch=4, sequence=16, hidden=32, evaluate_steps=3, threads=1),
    evolve=replace(
        DEMO.evolve, generations=3, population=4, unit_episodes=4, patience=20, validate_every=2, validation_episodes=2
    ),
    score=Score(episodes=2, unit_episodes=1),
    rounds=Rounds(count=2, episodes=2, vision_steps=3, memory_steps=3, generations=2, refit=True),
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
    # Many small updates, and details cheap to keep: else V leaves out the fireballs.
    vision=Vision(z=64, kl_weight=0.1, batch=32, steps=12_000, decay_steps=4_000, evaluate_steps=1_000),
    latents=Latents(mirrored=True),
    # Thousands of ends: M knows the few that 1,200 rollouts have by heart, and foresees no others. With the paper's
    # learning rate, or with dropout, so few updates leave what is drawn in dreams to chance.
    memory=replace(
        DOOM.memory,
        hidden=256,
        steps=8_000,
        batch=16,
        sequence=256,
        learning_rate=0.006,
        decay_steps=1_000,
        evaluate_steps=500,
    ),
    # Many short dreams amid what was played: all candidates face the same fireballs, and none waits for who lives long.
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
    # Random play ends early, so the first dream is too kind to who lives long: C's own rollouts should tell M.
    rounds=Rounds(
        count=3,
        episodes=296,
        vision_steps=0,
        memory_steps=2_000,
        memory_learning_rate=0.003,
        generations=60,
        fresh=True,
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
    "car-racing-best": BEST,  # one machine, two hours: jobs.iterate
    "car-racing-dream": DREAM,  # one machine, some hours: jobs.iterate
    "demo": DEMO,  # one machine, minutes
    "tiny": TINY,  # seconds: shows that everything runs, learns nothing
    "doom": DOOM,  # the paper's scale
    "doom-small": DOOM_SMALL,  # one machine, under two hours
    "doom-tiny": DOOM_TINY,  # seconds, like tiny
}
