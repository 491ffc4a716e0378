"""Which units are removed under a budget: importance, order, and how far the order is followed.

A criterion is a function under ``@criterion`` in ``criteria.py``; an allocation is named after its removal order, an
entry of ``ORDERS`` in ``orders.py``. ``bundles.py`` cuts groups into bundles, ``allocation.py`` chooses the units that
stay, ``filling.py`` searches for the counts that meet the budget, and ``sensitivity.py`` measures losses to go by.
"""
