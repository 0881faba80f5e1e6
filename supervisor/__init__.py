"""The supervisor: admits a run, starts it, waits for it, accounts for it.

Nothing is imported here: the road to a cached run is a few milliseconds long, and every module on
it is imported by the one that needs it.
"""
