"""Evaluation rows with pictures under Axolotl, which makes their tokens only when it collates a batch."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from tqdm import tqdm


class CollatedRows:
    """The rows of one set with the tokens that Axolotl's collator makes of them, one row at a time.

    Args:
        examples: The set as its file holds it.
        collate: Axolotl's own collator.
        name: Of the set, for the progress bar.
    """

    column_names = ("input_ids", "labels", "example")

    def __init__(self, examples: Any, collate: Any, name: str) -> None:
        self._examples = examples
        self._collate = collate
        bar = tqdm(range(len(examples)), desc=f"tokens of {name}", unit="row", mininterval=1.0, leave=False)
        self._tokens = [self._made(place) for place in bar]

    def _made(self, place: int) -> tuple[array[int], array[int]]:
        made = self._collate([deepcopy(self._examples[place])])
        kept = made["attention_mask"][0].bool()
        ids, labels = (made[key][0][kept].tolist() for key in ("input_ids", "labels"))
        return array("q", ids), array("q", labels)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, key: int | slice) -> Any:
        """One row, or several as lists by column, as a `datasets.Dataset` gives them."""
        if isinstance(key, slice):
            rows = [self[place] for place in range(*key.indices(len(self)))]
            return {name: [row[name] for row in rows] for name in self.column_names}
        ids, labels = self._tokens[key]
        return {"input_ids": ids.tolist(), "labels": labels.tolist(), "example": self._examples[key]}


class ExampleCollator:
    """Axolotl's collator, given whole examples beside their tokens."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Collate the examples."""
        return dict(self._collate([deepcopy(feature["example"]) for feature in features]))


def sees_pictures(trainer: Any) -> bool:
    """Whether this trainer's batches are made of conversations with pictures in them."""
    return hasattr(getattr(trainer, "eval_data_collator", None), "processing_strategy")
