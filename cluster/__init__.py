"""The machine: wm's work on Ray, wherever there are processors, whatever happens to them."""
