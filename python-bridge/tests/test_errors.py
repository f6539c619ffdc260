"""What an exception is called."""

import pytest

from vivarium_bridge.errors import failure_of
from vivarium_bridge.fitting import is_out_of_memory


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_short_memory_has_many_names(message):
    error = RuntimeError(message)
    assert is_out_of_memory(error)
    assert failure_of(error).code == "OUT_OF_MEMORY"


def test_what_is_no_shortage():
    for message in ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"):
        error = RuntimeError(message)
        assert not is_out_of_memory(error)
        assert failure_of(error).code == "INTERNAL"
