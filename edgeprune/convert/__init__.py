"""From a Keras model to the bytes of a .tflite, and what the converter says, in the user's terms.

Only ``converter.py`` calls the TFLite converter; a number format is an entry of ``_SETTINGS`` there. Formats that the
converter does not have are in ``weight_only.py``. An error of the converter that users can act on is an entry in the
tables of ``refusals.py``; a warning about a converted file is made in ``findings.py``.
"""
