"""Machines that run a .tflite, and measuring on them.

A new kind of device is a class in a file of its own and a line in ``DEVICES`` of ``protocol.py``; a new way to measure
is a function and a line in ``TOOLS`` there. ``bench.py`` runs a measurement; the emulated board is in ``emulator*.py``.
"""
