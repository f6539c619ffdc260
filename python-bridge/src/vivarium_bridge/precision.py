"""In which precision, and where, a proof is computed: in float32 where memory allows it, else as it was trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from .fitting import free, is_out_of_memory
from .prefix_cache import PrefixCache
from .ram import available_bytes

Place = Literal["here", "host", "host without cache", "as trained"]
"""Float32 on the model's own device, float32 on the host, the same after the prefix cache gave its memory back; or
the dtype of training on the model's own device."""
Computed = TypeVar("Computed")

FLOAT32_BYTES = 4
SPARE_SHARE = 0.1
"""Of the float32 weights: one weight is held twice while it is converted, thrice while an adapter is merged into it."""
SPARE_BYTES = 2**30
"""For activations and logits: 256 positions of 152k logits are 0.16 GB, and a few copies of them are held at once."""
AS_TRAINED = "the proof is computed in the dtype of training and nothing is merged: float32 weights do not fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What there is, in bytes but for ``n_weights``.

    Attributes:
        n_weights: Numbers in the model's weights.
        held_bytes: What they take now.
        gpu_free_bytes: On the model's GPU; None for a model on the host.
        host_free_bytes: On the host, beside the cache.
        cache_bytes: Of the host's memory, held by the prefix cache.
        kept_bytes: What the proof keeps on the host beside a model in float32.
    """

    n_weights: int
    held_bytes: int
    gpu_free_bytes: int | None
    host_free_bytes: int
    cache_bytes: int
    kept_bytes: int = 0


def proof_place(memory: Memory) -> Place:
    """The first place with room for float32 weights, with something to spare, that takes the least away."""
    weights = FLOAT32_BYTES * memory.n_weights
    if memory.held_bytes >= weights:
        return "here"  # they are float32
    needed = int((1 + SPARE_SHARE) * weights) + SPARE_BYTES
    host_needed = needed + memory.kept_bytes
    if memory.gpu_free_bytes is None:
        host_needed -= memory.held_bytes
    elif needed - memory.held_bytes <= memory.gpu_free_bytes:
        return "here"
    if host_needed <= memory.host_free_bytes:
        return "host"
    if host_needed <= memory.host_free_bytes + memory.cache_bytes:
        return "host without cache"
    return "as trained"


class Precision:
    """Holds a model in float32, in place, and afterwards in what it was: from bfloat16 and back no bit is lost."""

    def __init__(self, info: Callable[[str], None], cache: PrefixCache | None = None) -> None:
        self.in_float32 = False
        self._info = info
        self._cache = cache

    def compute(self, model: Any, compute: Callable[[], Computed], *, keeps_weights: bool = False) -> Computed:
        """Put the model where there is room, in float32 if there is, and compute; it stays like that.

        Args:
            model: With weights that are not quantised.
            compute: Is called again in the dtype of training if the memory turns out too short for float32.
            keeps_weights: Whether the proof will keep the weights on the host once more, in the dtype of training.
        """
        self._model, self._device = model, model.device
        self._dtypes = {parameter: parameter.dtype for parameter in model.parameters()}
        place = proof_place(self._memory(keeps_weights))
        if place == "host without cache" and self._cache is not None:
            self._cache.close()
        if place != "as trained":
            try:
                self._to_float32(self._device if place == "here" else "cpu")
                self.in_float32 = True
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self.restore()  # out here: the exception holds the frames, and they hold the activations
        self._info(AS_TRAINED)
        return compute()

    def compute_if_it_fits(self, compute: Callable[[], Computed], what: str) -> Computed | None:
        """Compute something a proof can do without; None, and said so, if the memory is too short for it."""
        try:
            return compute()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free()
        self._info(f"{what} is not proved: memory is too short")
        return None

    def restore(self) -> None:
        """Give the weights their dtypes and their device back."""
        free()
        for parameter, dtype in self._dtypes.items():
            parameter.data = parameter.data.to(dtype)
        free()
        self._model.to(self._device)
        self.in_float32 = False

    def _memory(self, keeps_weights: bool) -> Memory:
        import torch

        held = sum(parameter.nbytes for parameter in self._dtypes)
        return Memory(
            n_weights=sum(parameter.numel() for parameter in self._dtypes),
            held_bytes=held,
            gpu_free_bytes=torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else None,
            host_free_bytes=available_bytes(),
            cache_bytes=0 if self._cache is None else self._cache.memory_bytes,
            kept_bytes=held if keeps_weights else 0,
        )

    def _to_float32(self, device: Any) -> None:
        import torch

        self._model.to(device)
        for parameter, dtype in self._dtypes.items():
            if dtype.is_floating_point:
                parameter.data = parameter.data.to(torch.float32)
