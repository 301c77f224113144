"""Takes over an old service: its log, and files of its owner."""
