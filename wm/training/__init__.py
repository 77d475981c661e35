"""Training V and M.

loop          the training loop of both, which resumes bit for bit from checkpoints
learner       the interface between the loop and a model   vision, vaegan, memory   the learners
sequences     latents as training sequences for M          weights                  initial weights from other runs
diagnostics   baselines for M and the calibration of its predictions
tensorboard   training curves as event files
"""
