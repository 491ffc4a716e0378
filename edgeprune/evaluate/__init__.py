"""Accuracy of a model and of the .tflite that is shipped, and how far the two are apart."""
