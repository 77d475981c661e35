"""Runs of runs, and what is measured on them.

rounds          iterative training: each round trains on the previous agent's data
round_metrics   what is measured of a round
tune            the state of a search over fields of the config, from these parts:
    spaces, searchers, stopping, importance
trials          a trial: a run that derives from a base and shares what its fields do not touch
sweep           C at several temperatures of the dream
coverage        how much of the game the rollouts have visited
plan            how long a config takes on given machines
vision_metrics  how good a V is
"""
