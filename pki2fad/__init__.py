"""pki2fad: what ssh-agent is for keys, for TOTP seeds."""

__version__ = "0.2.0"
