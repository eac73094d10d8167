"""Flows of this kind."""
