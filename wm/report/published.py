"""Published scores for each game, for comparison with a run's. Reports of other games leave them out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A published score, with the standard deviation of episodes."""

    agent: str
    score: float
    spread: float | None = None


@dataclass(frozen=True)
class Published:
    source: str
    results: tuple[Result, ...]  # best last
    curve: tuple[tuple[float, float], ...] = ()  # (environment steps, score)
    curve_about: str = ""
    taus: tuple[tuple[float, Result, Result], ...] = ()  # (tau, score in the dream, in the real game)
    solved: float | None = None  # score at which the game counts as solved


PAPER = "Ha & Schmidhuber (2018)"

PUBLISHED: dict[str, Published] = {
    "car-racing": Published(
        source=f"{PAPER}, table 1: 100 tracks each",
        results=(
            Result("DQN", 343, 18),
            Result("A3C, continuous", 591, 45),
            Result("Paper: V only, C sees z", 632, 251),
            Result("A3C, discrete", 652, 10),
            Result("Paper: z, one hidden layer", 788, 141),
            Result("Leaderboard best, 2018", 838, 11),
            Result("Paper: the world model, z and h", 906, 21),
        ),
        curve=((2.6e7, 823), (5.1e7, 867), (4.7e8, 891), (1.7e9, 900.5)),
        curve_about="the authors' run, 1,024 episodes per point",
        solved=900,
    ),
    "doom": Published(
        source=f"{PAPER}, table 2: 100 episodes each",
        results=(
            Result("Random policy", 210, 108),
            Result("Leaderboard best, 2018", 820, 58),
            Result("Paper: evolved in the dream, tau 1.15", 1092, 556),
        ),
        taus=tuple(
            (tau, Result("dream", *dream), Result("real", *real))
            for tau, dream, real in (
                (0.10, (2086, 140), (193, 58)),
                (0.50, (2060, 277), (196, 50)),
                (1.00, (1145, 690), (868, 511)),
                (1.15, (918, 546), (1092, 556)),
                (1.30, (732, 269), (753, 139)),
            )
        ),
        solved=750,
    ),
}
