"""The cluster on AWS: what has to exist beforehand, and whether it does."""
