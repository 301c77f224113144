"""Serves connections: who gets in, whose turn it is, and when an answer may leave."""
