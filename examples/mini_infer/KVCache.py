"""The key/value cache of the original project, from the package minillm."""
from minillm import KVCache

__all__ = ["KVCache"]
