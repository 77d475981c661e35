"""What people look at.

pictures   what V sees and what M predicts      replay   an agent, step by step
drawing    grids and curves with OpenCV         film     replays as files that browsers play
"""
