"""Checkpoints: written whole, and all that a resumed run needs to go on to the bit."""
