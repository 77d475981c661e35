"""The configuration of a run.

fields     kinds of fields (bits, extent, free), overrides, and checks that follow from a field's kind
schema     the sections, one for each stage, as frozen dataclasses
presets    configs to start from
"""
