"""One TOML file per board: facts with their sources, no logic. Read by :mod:`edgeprune.target`."""
