"""World Models (Ha & Schmidhuber, 2018): a world model learned from rollouts, and a controller evolved on top of it.

The models, with the paper's names:

    V  vision      frame -> z               wm/models/vision.py
    M  memory      (z, a, h) -> the next z  wm/models/memory.py
    C  controller  (z, h) -> a              wm/models/controller.py

The packages:

    config        fields, sections and presets           agents        trained agents in runs and files
    envs          the games and the agent loop           visuals       pictures and films
    models        V, M, C and the agent of all three     stages        the stages of a run
    runs          storage, manifests and checkpoints     experiments   rounds, sweeps and their metrics
    dream         M as the game                          report        HTML reports
    evolution     CMA-ES and the evaluation of C         pipeline      all stages in order
    training      the training of V and M                pool          the interface to the machine

Names from the paper:

    z       latent vector of a frame, sampled from N(mu, exp(logvar))
    h, c    hidden and cell state of M's LSTM
    a       action in the game's format
    logpi, mu, logsigma
            log weights, means and log deviations of M's mixture
    tau     temperature of the dream
    theta   all parameters of C in one flat vector

Letters in shape comments such as `# (B, T, Z)`:

    B batch      T time         Z latent            A action     H hidden   F inputs of C
    K mixtures   P population   N parameters of C   E episodes
"""

import os

# How often a waiting OpenMP thread spins before it sleeps; must be set before torch is imported. On a busy machine the
# default, which is 30 times as large, slows the training of M down to a sixtieth; this value, to a fifteenth.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
