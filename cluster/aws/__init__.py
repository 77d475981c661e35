"""AWS prerequisites for the cluster, checks for them, and the node provider."""
