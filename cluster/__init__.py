"""Runs the work of wm on Ray, and recovers from lost processes and nodes."""
