"""Reads and writes accounts as files: batches and backups."""
