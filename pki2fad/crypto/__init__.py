"""Makes keys, seals and opens, and keeps secrets in memory that is wiped."""
