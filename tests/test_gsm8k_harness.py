"""Equality with lm-evaluation-harness, which only the Axolotl environment has."""

import random

import pytest

from tunebook.metrics import gsm8k

PIECES = [
    "#### ", "####", "42", "-", "$", ",", ".", " ", "\n", "1,234", "The answer is ", "apples", "...", "0.5", "#### -7",
    "2.", "\\boxed{3}", "[invalid]", "٣", "$.", ",,", "é", "-$5", "#### 1,000.", "<think>", "X", "#### #### 9", "word " * 60,
]  # fmt: skip


@pytest.mark.axolotl
def test_strict_match_and_flexible_extract_are_lm_evaluation_harness_code():
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    strict = RegexFilter(regex_pattern=r"#### (\-?[0-9\.\,]+)")
    flexible = RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    ignored = [",", "\\$", "(?s).*#### ", "\\.$"]
    generator = random.Random(0)
    for _ in range(20_000):
        said = "".join(generator.choices(PIECES, k=generator.randint(0, 40)))
        gold = generator.choice(["Six times seven.\n#### 42", "#### 1,234", "#### -7", "3", "#### 0.5"])
        values = gsm8k.score(said, gold).values
        for name, harness in (("strict_match", strict), ("flexible_extract", flexible)):
            [[extracted]] = harness.apply([[said]], [{}])
            wanted = exact_match_hf_evaluate(
                predictions=[extracted], references=[gold], regexes_to_ignore=ignored, ignore_case=True
            )
            assert values[name] == wanted["exact_match"], (name, said, gold)
