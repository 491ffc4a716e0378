"""What a target makes of a .tflite: which operators its processors take, what its compiler does, how long it will take.

- ``placement.py``: rules of a processor as data, and the partition of a graph that follows from them. A delegate's rule
  belongs into ``delegates.py``, an Edge TPU's into ``edgetpu/limits.py``, one of XNNPACK's sparse inference into
  ``xnnpack/sparse_inference.py``.
- ``compilers.py``: a new vendor compiler is a module and an entry in its table.
- ``latency/``: the latency model. How much work a new operator is, is an entry in ``latency/features.py``.

A new board needs no code: it is a file in ``targets/``. What holds for a file on every target is in
:mod:`edgeprune.tflite`.
"""
