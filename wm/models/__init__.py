"""V, M and C, and the agent of the three. No files, no runs.

vision       V: encodes a frame as z              vaegan      losses of a V trained as a VAE-GAN
memory       M: predicts the next z               controller  C: maps z and h to an action
agent        all three in the real game           curiosity   an agent that measures M's surprise
build        models with the sizes of a config
"""
