"""Which class a voxel is of: one rule for the probabilities of a prediction and the shares of a truth.

The classes exclude each other, and what they lack together to 1 is background. So a voxel is marked where all
classes together reach the threshold, and it is of the class that has most of it; of equal ones, of the last,
as with a label that is in two classes. With one class that is the threshold alone. `logits.likeliest` is the
same for tensors.
"""

import numpy as np

RULE = "the likeliest class, where all together reach the threshold"
"""What records of several classes say; those of before this rule say nothing."""


def rule_of(classes: int) -> dict[str, str]:
    """What a record says of the rule; nothing for one class, where there is none besides the threshold."""
    return {"labels_by": RULE} if classes > 1 else {}


def foreground(shares: np.ndarray) -> np.ndarray:
    """What all classes have together of each voxel, `…`, at most 1.

    Args:
        shares: `classes …`, in [0, 1].
    """
    together: np.ndarray = shares[0] if len(shares) == 1 else np.minimum(shares.sum(axis=0), 1)
    return together


def to_labels(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Class indices, uint8, of probabilities `classes …`: marked where these reach the threshold together."""
    return likeliest(probability, foreground(probability) >= threshold)


def likeliest(shares: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Class indices, uint8, from shares `classes …`: of what is `marked` the class that has most of it."""
    if len(shares) == 1:
        return marked.astype(np.uint8)
    best = len(shares) - shares[::-1].argmax(axis=0)
    return np.where(marked, best, 0).astype(np.uint8)
