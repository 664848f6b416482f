"""The options of our Axolotl plugin. Axolotl mixes this model into its own; no torch here, no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, model_validator

from tunebook.engines.axolotl.rules import evaluation_faults
from tunebook.errors import join_errors


class TunebookArgs(BaseModel):
    """Which registry entries stand behind `test_datasets`, and where the registry is."""

    tunebook_dataset_dir: str | None = Field(
        default=None, json_schema_extra={"description": "Folder that holds dataset_info.json."}
    )
    tunebook_eval_datasets: list[str] | None = Field(
        default=None,
        json_schema_extra={
            "description": "The registry entry of each block of `test_datasets`, in their order. With "
            "several, metrics are named eval_<entry>_<metric>."
        },
    )

    @model_validator(mode="before")
    @classmethod
    def refuse_settings_that_void_the_evaluation(cls, data: Any) -> Any:
        """Stop on every setting with which the evaluation would not happen, or would not be true.

        Raises:
            ValueError: There are such settings; all are named, each with the key to change.
        """
        faults = evaluation_faults(data, Path.cwd())
        if faults:
            raise ValueError(str(join_errors(faults)))
        return data
