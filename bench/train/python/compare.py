"""How far two trained adapters are apart, as JSON on stdout. Usage: compare.py REFERENCE OTHER ..."""

import json
import sys

from safetensors.torch import load_file
from setting import first_weights


def compare(reference_file: str, other_file: str) -> tuple[float, float]:
    """Largest difference of a matrix over all matrices, in Frobenius norms.

    Returns:
        Relative to the reference's matrix, and relative to what training changed of it.
    """
    reference, other = load_file(reference_file), load_file(other_file)
    if reference.keys() != other.keys():
        raise SystemExit(f"{other_file}: other matrices than {reference_file}")
    of_weights, of_updates = 0.0, 0.0
    for name, matrix in reference.items():
        distance = (other[name] - matrix).norm().item()
        of_weights = max(of_weights, distance / matrix.norm().item())
        of_updates = max(of_updates, distance / (matrix - first_weights(name, tuple(matrix.shape))).norm().item())
    return of_weights, of_updates


def main() -> None:
    """Compare each other adapter with the reference."""
    reference, *others = sys.argv[1:]
    found = [compare(reference, other) for other in others]
    print(
        json.dumps(
            {
                "max_rel_weight_diff": max(weights for weights, _ in found),
                "max_rel_update_diff": max(updates for _, updates in found),
            }
        )
    )


if __name__ == "__main__":
    main()
