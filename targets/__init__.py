"""One TOML file per board: facts with their sources, no logic.

:mod:`edgeprune.target` reads them and describes every key. A new board is a new file; every number needs a source.
"""
