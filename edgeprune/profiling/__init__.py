"""The profile of a .tflite: all that can be said without running it, in one document; and the comparison of two.

A new figure is computed in :mod:`edgeprune.tflite` (from the file alone) or :mod:`edgeprune.hardware` (for a target),
and gets a field in ``profile.py``.
"""
