"""Which units are removed under a budget: importance, order, and how far the order is followed.

A criterion is a function under ``@criterion`` in ``criteria.py``. ``ladders.py`` has the widths that a group may have,
``budget.py`` and ``file_costs.py`` what is limited, ``allocation.py`` chooses the units that stay by solving a
``program.py``, ``reasons.py`` says why, ``sensitivity.py`` measures losses to go by, and ``effects.py`` measures a
choice, for the next one.
"""
