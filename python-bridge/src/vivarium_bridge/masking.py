"""Which tokens the loss sees. Standard library only, so that it is tested without torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .rendering import Segment

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One conversation as tokens: ``ids`` and ``targets`` are ``[T]``; a target is predicted from its predecessors."""

    ids: list[int]
    targets: list[bool]

    @property
    def n_targets(self) -> int:
        """Tokens that the loss sees."""
        return sum(self.targets)


def tokenise_segments(segments: Sequence[Segment], encode: Encode) -> TokenRow:
    """Encode a rendered conversation segment by segment.

    Args:
        segments: From ``segment_conversation``.
        encode: Text to token ids, without special tokens of its own.

    Raises:
        ValueError: If the text as a whole gives other tokens, that is, a token would span the border of prompt and
            answer: inference could never produce that sequence. If no token is a target, or the first one is, which
            nothing predicts.
    """
    ids: list[int] = []
    targets: list[bool] = []
    for segment in segments:
        piece = encode(segment.text)
        ids += piece
        targets += [segment.is_target] * len(piece)
    if ids != encode("".join(segment.text for segment in segments)):
        raise ValueError("the tokens change where prompt and answer meet: does an answer start with white space?")
    row = TokenRow(ids, targets)
    if row.n_targets == 0:
        raise ValueError("no target token: the row would train on nothing")
    if row.targets[0]:
        raise ValueError("the first token is a target, but nothing predicts it")
    return row
