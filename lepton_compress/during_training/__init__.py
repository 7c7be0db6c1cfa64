"""Compression while a training loop that is the user's own runs: a plain one, Lightning's or the
Hugging Face Trainer's.

settings     when what happens, and how                         checked at once
session      counts updates, does what is due, hands over       the public class
narrowing    prunes a module and its optimiser where they are
rounding     lets a module's forward() round as its artifact will
lightning, transformers   the same as callbacks of those trainers
"""
