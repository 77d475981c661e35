"""Trained agents: V, M and C together.

artifacts   the models that a run has made
trained     an agent of a run or of a file, ready to act and to dream
files       an agent as a file, and back
unpack      a run made from such a file
card        how an agent was made and how it scores

The agents that come with the project are in this folder, too.
"""
