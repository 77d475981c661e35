"""Reports: one HTML file that holds all it shows, for a browser on a desk or a phone, without a network.

page       markup that escapes by itself, the page around it, tables and figures
charts     lines, bars and histograms as inline SVG
published  what others have reached in a game
findings   what a run holds so far, finished or not
rounds     rounds of the agent's own data, where a run has such
contents   the report of one run, from parts in results, models and making
"""
