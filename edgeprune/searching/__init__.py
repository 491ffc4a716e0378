"""``edgeprune search``: the recipes with the best accuracy, latency and size for a board, found by trying.

A **trial** is a recipe that Optuna asked for within a **space** (:mod:`edgeprune.searching.space`). It climbs a
**ladder** (:mod:`edgeprune.searching.ladder`): first without training, then with few epochs, then in full, as long as
it may still reach the **front**, the files that no other file beats in all objectives
(:mod:`edgeprune.searching.goal`). Each rung is an ordinary build without test data
(:mod:`edgeprune.searching.trials`), and all of them keep their stages in one folder, each stage once. An **executor**
(:mod:`edgeprune.searching.executors`) runs rungs in this process or in others. The study
(:mod:`edgeprune.searching.study`) is a journal on disk: a search that was ended in any way goes on from it.
"""
