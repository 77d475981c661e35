"""The dream: M as the game (Ha & Schmidhuber, 2018, section 4).

rules        when a dream ends and what a step is worth
starts       where dreams begin
world        one step of many dreams at once
population   all candidates of a generation, dreaming in one batch
env          the dream as a gymnasium environment for other agents
"""
