"""Runs of runs, and what is measured on them.

rounds          iterative training: each round trains on the previous agent's data
round_metrics   what is measured of a round
sweep           C at several temperatures of the dream
coverage        how much of the game the rollouts have visited
plan            how long a config takes on given machines
vision_metrics  how good a V is
"""
