"""Image files: alone, with masks, and with boxes."""
