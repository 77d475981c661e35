"""Pictures and films.

pictures   V's reconstructions and M's predictions      replay   an agent, step by step
drawing    grids and curves with OpenCV                 film     replays as files that browsers play
"""
