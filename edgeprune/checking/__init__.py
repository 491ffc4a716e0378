"""``edgeprune check``: what of a model will not run on a target, or not run fast, and what to change.

``model.py`` is the entry point: it reads a .tflite, or converts a Keras model for the purpose (``trial.py``). A new
check is a function from a :class:`~edgeprune.checking.check.Subject` and a target to findings, and an entry of
``CHECKERS`` in ``check.py``. What the hardware can do is in :mod:`edgeprune.hardware`; a checker only puts it in words.
"""
