"""C's evolution (Ha & Schmidhuber, 2018, section 2.4).

cma_es       the search distribution, with its state as arrays and plain values
units        the episodes of a generation and of a validation as units of work
evaluation   the work that plays or dreams these units
objective    the fitness of candidates from their scores
components   principal components of C's inputs as search directions
refit        fits C to another V and M
"""
