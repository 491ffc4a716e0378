"""XNNPACK's sparse inference: its conditions, and whether a file meets them."""
