"""The Python half of the runtime: it speaks to the compiled core and keeps its compiled modules.

Nothing is imported here; see `supervisor/__init__.py` for the reason.
"""
