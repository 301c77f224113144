"""What tests of every kind share. `pythonpath` in pyproject.toml makes it importable as `support`."""
