"""What a model is trained for and measured by, per output: losses, metrics, kinds of labels.

``resolve.py`` decides, from the recipe, then from how the model was compiled, then by the rules of ``infer.py``; what
it cannot decide it asks for. One output is decided in ``output.py`` and ``output_metrics.py``, of what ``given.py``
holds. ``task.py`` is what comes out, and ``stating.py`` writes it as a recipe. ``losses.py`` and ``metrics.py`` are
tables of what is known of Keras' losses and metrics; ``labels.py`` brings labels into the form that a loss takes;
``teacher.py`` makes a task of the unpruned model's outputs where there are no labels; ``diagnosis.py`` looks for the
cause of a bad baseline.
"""
