"""The stages of the method, one file each: `stage(run, pool)` does what is missing and returns its manifest.

Called again, a stage finds itself complete. The table of all stages is `wm/runs/stages.py`.
"""
