"""C's evolution (Ha & Schmidhuber, 2018, section 2.4).

cma_es       the search distribution, with its state as arrays and plain values
units        the episodes of a generation and of a validation, as units of work
evaluation   workers that play or dream these units
objective    from the scores of all episodes to the fitness of each candidate
components   principal components of C's inputs, as directions to search in
refit        C fitted to another V and M
"""
