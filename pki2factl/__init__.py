"""pki2factl: the command-line client of pki2fad."""
