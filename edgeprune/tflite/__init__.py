"""The .tflite file as data: its graph, and what can be computed from the file alone. No TensorFlow, no target.

A new TFLite operator belongs into the tables here: its MACs into ``macs.py``, the inputs that hold its weights into
``size.py``, its scratch memory into ``scratch.py``, and the first releases that run it into ``operator_versions.csv``.
What a target makes of a file is in :mod:`edgeprune.hardware`; running it is in :mod:`edgeprune.runtime`.
"""
