"""Graph learning for recommenders that never stop learning."""

__version__ = "0.1.0"
