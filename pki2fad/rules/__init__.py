"""Decides whether a code is good, without input or output."""
