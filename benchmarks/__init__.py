"""Experiments with metamed: which ones we chose, and what came out. No machinery."""
