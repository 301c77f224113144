"""Helps people log in: accounts of users, passwords, typed codes."""
