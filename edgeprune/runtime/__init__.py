"""Running a .tflite on this machine: finding an installed runtime, feeding an interpreter, reading its tensors.

``runner.py`` times files and stands alone, because it is also copied to boards. What the runtimes' Python API looks
like is in ``api.py``; a new runtime is an entry in ``RUNTIMES`` of ``runner.py``. Running files on other machines is
in :mod:`edgeprune.devices`.
"""
