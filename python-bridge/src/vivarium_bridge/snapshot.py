"""What a step changes, as tensors by name: weights, the optimizer's state, random number generators."""

from typing import Any


def capture_rng() -> dict[str, Any]:
    """States of the random number generators that dropout draws from, as uint8 tensors."""
    import torch

    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def capture(parameters: dict[str, Any], optimizer: Any, rng: dict[str, Any]) -> dict[str, Any]:
    """Copies of the trained parameters, the optimizer's state and the generator states.

    What an optimizer keeps of a parameter are tensors, of whatever dtype, and numbers: bitsandbytes counts its steps
    in an int, torch in a tensor.

    Args:
        parameters: Trained parameters by name.
        optimizer: Over the same parameters.
        rng: From ``capture_rng``, taken before the next step's first random number.
    """
    import torch

    tensors = dict(rng)
    for name, parameter in parameters.items():
        tensors[f"param.{name}"] = parameter.detach().cpu().clone().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"optim.{key}.{name}"] = value.detach().cpu().clone().contiguous()
            elif value is not None:
                tensors[f"optim_int.{key}.{name}"] = torch.tensor(value, dtype=torch.int64)
    return tensors


def restore(tensors: dict[str, Any], parameters: dict[str, Any], optimizer: Any) -> None:
    """The inverse of ``capture``."""
    import torch

    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"param.{name}"])
    for name, tensor in tensors.items():
        kind, *keys = name.split(".", 2)
        if kind == "optim":
            key, owner = keys
            # torch keeps Adam's step counters on the CPU unless the optimizer is capturable.
            parameter = parameters[owner]
            optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter.device)
        elif kind == "optim_int":
            key, owner = keys
            optimizer.state[parameters[owner]][key] = int(tensor)
    restore_rng(tensors)


def restore_rng(tensors: dict[str, Any]) -> None:
    """The inverse of ``capture_rng``."""
    import torch

    torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
