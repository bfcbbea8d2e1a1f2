"""MiniLLM: language models with FlashAttention and a paged KV cache.

>>> from minillm import MiniLLM, KVCache, Configs
>>> config = Configs.small()
>>> model = MiniLLM(config)                        # seeded random weights; MiniLLM.load("model.gguf") for real ones
>>> cache = KVCache(config, batch_size=2)
>>> logits = model([[1, 2, 3], [4, 5, 6]], kv_cache=cache, use_flash_attention=True, flash_block_size=128)
>>> logits.shape
(2, 3, 32000)
"""
from ._core import (
    DEFAULT_MODEL,
    Activation,
    AttentionResult,
    CachedText,
    ChatTemplate,
    Configs,
    Engine,
    FileInfo,
    Generation,
    KVCache,
    MachinePeaks,
    MemoryPlan,
    MemoryReport,
    MiniLLM,
    ModelConfig,
    RopeLayout,
    RopeScaling,
    RopeScalingKind,
    StepEvent,
    StreamingDecoder,
    TensorInfo,
    TextGenerator,
    Timings,
    Tokenizer,
    flash_attention,
    inspect,
    model_folder,
    pull,
    resolve_model,
    standard_attention,
)
from .errors import (
    CancelledError,
    CapacityError,
    CorruptFileError,
    DeviceError,
    Error,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfMemoryError,
    UnsupportedError,
)

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_MODEL", "Activation", "AttentionResult", "CachedText", "CancelledError", "CapacityError", "ChatTemplate", "Configs", "CorruptFileError",
    "DeviceError", "Engine", "Error", "FileInfo", "Generation", "InternalError", "InvalidArgumentError", "KVCache", "MachinePeaks",
    "MemoryPlan", "MemoryReport", "MiniLLM", "ModelConfig", "NotFoundError", "OutOfMemoryError", "RopeLayout", "RopeScaling",
    "RopeScalingKind", "StepEvent", "StreamingDecoder", "TensorInfo", "TextGenerator", "Timings", "Tokenizer", "UnsupportedError",
    "flash_attention", "inspect", "model_folder", "pull", "resolve_model", "standard_attention",
]
