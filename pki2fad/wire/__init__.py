"""Turns bytes into messages and back."""
