"""The channel graph of a model, and the surgery that removes units from it.

``analyse.py`` walks through the layer calls and applies a rule per layer class; what it finds is a
:class:`~edgeprune.prune.channels.graph.Graph`. How channels pass through one more layer or operation is a rule in the
table of its kind in ``rules/``; the walk does not change. ``surgery.py`` removes units and makes the oracle;
``blocks.py`` does the same for whole residual blocks and layers.
"""
