"""World Models (Ha & Schmidhuber, 2018): learn to see, to predict, and to act.

The parts, under the paper's names:

    V  vision      a frame -> z, what the agent sees         wm/vision.py
    M  memory      (z, a, h) -> the next z, what it expects  wm/memory.py
    C  controller  (z, h) -> a, what it does                 wm/controller.py

The paper's symbols, used as names in code:

    z       latent vector of one frame, drawn from N(mu, exp(logvar))
    h, c    hidden and cell state of M's LSTM
    a       action, as the game takes it
    logpi, mu, logsigma
            log weights, means and log deviations of M's mixture
    tau     temperature of the dream
    theta   all parameters of C in one flat vector

The letters of shape comments, as in `# (B, T, Z)`:

    B batch   T time     Z latent      A action    H hidden
    K mixtures   P population   N parameters of C   E episodes
"""

import os

# Before torch loads OpenMP: how often a waiting thread looks again before it sleeps. The default is thirty times that:
# two threads that train M beside other busy processes then do a sixtieth of what they do alone; so it is a fifteenth.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
