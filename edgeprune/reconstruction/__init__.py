"""Refitting a changed model, layer by layer, to what the original one computed: least squares in place of training."""
