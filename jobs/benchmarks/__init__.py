"""What `python -m jobs.bench` measures, one file a subject."""
