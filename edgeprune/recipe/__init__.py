"""What the user asks for: recipes in TOML, validated, with every default written out.

A section is a class in ``config.py``, and a key of it a field with a default; ``template.toml.txt``, which ``edgeprune
init`` writes, shows each of them. ``load.py`` reads recipes and explains mistakes; those that come along are in
``builtin/``. ``granularity.py`` is here because recipes are validated with it; ``patterns.py`` matches layer names.
"""
