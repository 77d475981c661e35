"""The stages of the method, one file each. A stage is a function of (config, run, pool).

It does what is missing, commits its manifest and returns it; called again, it finds itself complete.
"""
