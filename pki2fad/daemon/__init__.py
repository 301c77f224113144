"""Runs the daemon: settings, start, reload, stop, and what it does by itself."""
