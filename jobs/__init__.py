"""The doors: one thin file per job, what a person types or submits to a cluster."""
