"""The command-line entry points, one file for each job: `python -m jobs.NAME`, or `wm NAME`."""
