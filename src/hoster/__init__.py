"""hoster keeps virtual machines alive past the death of their disk, their host and their building."""

__version__ = "0.1.0"
