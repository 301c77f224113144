"""Shows logs and counts to people and programs."""
