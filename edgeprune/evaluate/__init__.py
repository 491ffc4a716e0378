"""The metric of a Keras model and of a .tflite, and their parity: how far the outputs of the two are apart.

This needs data and TensorFlow; what needs neither is in :mod:`edgeprune.profiling`.
"""
