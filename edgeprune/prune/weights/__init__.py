"""Pruning of single weights while a model trains: which kernels, when, and by which engine.

What tfmot supports runs on tfmot (``magnitude.py``), everything else on ``masked.py``; ``engines.py`` chooses, and
counts the zeros afterwards. A criterion is an entry of ``EVIDENCE``, a way to regrow an entry of ``GROWTH``, both in
``masked.py``; a schedule is an entry of ``SCHEDULES`` in ``schedule.py``; a granularity is a class in
:mod:`edgeprune.recipe.granularity`, which recipes are validated with.
"""
