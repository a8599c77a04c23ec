"""Dead letters: reading, patching and redriving them."""
