"""Uses the host: files, paths, streams, logs, systemd."""
