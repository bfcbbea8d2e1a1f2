"""The model and the generator of the original project, from the package minillm."""
from minillm import MiniLLM, TextGenerator

__all__ = ["MiniLLM", "TextGenerator"]
