"""Experiments: what is measured, how it is run and recorded, and the command ``deq``.

Nothing is imported here, so that the command line starts at once.
"""
