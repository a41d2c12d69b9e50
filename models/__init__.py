"""The torch model definitions and their registry."""
