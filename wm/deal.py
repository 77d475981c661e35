"""Which candidate plays which tracks, and what its score is then.

Two tracks for all make candidates comparable, but the whole generation then learns to drive those two. Dealt from a
larger number, the luck of the tracks is averaged over the population; what each candidate's own were worth is estimated
together with the scores, by least squares, and taken out.
"""

import numpy as np


def deal(population: int, episodes: int, tracks: int, rng: np.random.Generator) -> np.ndarray:
    """Tracks of each candidate (P, E), no two the same, each played about as often as any other."""
    assert episodes <= tracks, (episodes, tracks)
    played, dealt = np.zeros(tracks), []
    for _ in range(population):
        rarest = np.lexsort((rng.random(tracks), played))[:episodes]
        played[rarest] += 1
        dealt.append(rarest)
    return np.stack(dealt)


def scores(returns: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """What each candidate would have, had it played all tracks (P,): its returns (P, E) are its part and the tracks'.

    A candidate with a return that is no number has a score that is none.
    """
    population, tracks = len(dealt), dealt.max() + 1
    candidate = np.broadcast_to(np.arange(population)[:, None], dealt.shape)
    design = np.concatenate((np.eye(population)[candidate], np.eye(tracks)[dealt]), axis=2)  # (P, E, P + T)
    good = np.isfinite(returns).all(axis=1)
    found = np.linalg.lstsq(design[good].reshape(-1, population + tracks), returns[good].ravel(), rcond=None)[0]
    return np.where(good, found[:population] + found[population:].mean(), np.nan)
