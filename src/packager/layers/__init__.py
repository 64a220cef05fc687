"""Exact bytes to one canonical tar each."""
