"""Asking an artifact: from a file or a text to an answer in words."""
