"""How a model is quantized: the plan for each number format, and what is done to the model for int8.

``plan.py`` derives the plan from recipe and target; a number format is an entry of its ``RULES``. What happens to the
model before int8: ``equalize.py`` and ``bias.py`` change weights, ``cluster.py`` shares them, ``qat.py`` trains with
rounding. ``narrowing.py`` narrows activation ranges, ``mixed.py`` chooses the operators that stay in float. A layer
that is to be trained for int8 is an entry in the tables of ``rules.py``, and in ``prepare.py`` if it is taken apart
first. The conversion itself is in :mod:`edgeprune.convert`.
"""
