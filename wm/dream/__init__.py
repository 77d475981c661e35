"""The dream: M as the game (Ha & Schmidhuber, 2018, section 4).

rules        when a dream ends and how a step is rewarded
starts       initial states of dreams
world        one step of a batch of dreams
population   all candidates of a generation in one batch of dreams
env          the dream as a gymnasium environment for other agents
"""
