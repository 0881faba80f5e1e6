"""Policies: units as people write them, the settings of a run, and named sets of them."""
