"""The model sizes of the original project, from the package minillm."""
from minillm import Configs, ModelConfig

__all__ = ["Configs", "ModelConfig"]
