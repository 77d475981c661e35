"""Reports as single HTML files for desktop and phone browsers; they need no server and no network.

page                 HTML elements, tables and figures, with escaping
charts, frames       curves, bars and histograms as inline SVG; grids of frames
run_page             the report of one run, from these sections:
    score_section, model_section, rounds_section, temperature_section, provenance
run_view             the state of a run, which may be incomplete
learning_curve       validation scores over steps of the game, including earlier runs
published            published scores for each game
tune_page            the results of a search, from the numbers of tune_table
temperature          the tables and the plot of a sweep over temperatures
compare_page         several runs next to each other, from the numbers of compare_data
"""
