"""V, M and C, and the agent of the three. No files, no runs.

vision       V: a frame becomes z           vaegan      V trained as a VAE-GAN
memory       M: what comes next             controller  C: from what the agent sees to an action
agent        the three in the real game     curiosity   an agent that measures M's surprise
build        models of the sizes that a config asks for
"""
