"""Commands that show what the mesh does in numbers."""
