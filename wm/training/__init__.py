"""Training V and M.

loop          one loop for both, with checkpoints that resume to the same bits
learner       what the loop needs of a model        vision, vaegan, memory   their learners
sequences     latents as training sequences for M   weights                  models of other runs to start from
diagnostics   baselines for M and the calibration of its predictions
tensorboard   curves as event files
"""
