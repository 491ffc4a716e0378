"""A Keras model made ready for XNNPACK's sparse inference: described (``keras.py``) and rewritten (``prepare.py``).

The conditions of XNNPACK are in :mod:`edgeprune.hardware.xnnpack.sparse_inference`. A Keras layer that becomes one of
its nodes is an entry of ``_KINDS`` in ``keras.py``.
"""
