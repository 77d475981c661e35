"""Fuzzing: damages a finished run, an agent file and command lines from a seed, and judges what the jobs do.

The rule: a job exits with 0 and the same result, or with 1 or 2 and a line that says why. It never ends in a traceback,
never hangs, and never gives another result without a word.

    python -m fuzzing run --count 1000 --seed 7        also: agent, lines
"""
