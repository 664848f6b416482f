"""Every metric that reads answers stays linear in the length of its text, whatever the text is."""

import time

import pytest

from tunebook import metrics

ATOMS = [
    "<think>", "</think>", "<think>a</think>", "<", "</", "<|", "<|im_start|>", "<|im_start|>user\n",
    "<|im_start|>assistant\n", "<|im_end|>", "<|channel|>analysis<|message|>", "[INST]", "[/INST]", "</s>", "<pad>",
    "user\n", "assistant\n", "User:", "User: ", "\n\nUser: ", "Assistant: ", "Human: ", "### Response:", "### ", "#", "####", "#### ", "#### 1\n",
    "\\boxed{", "\\boxed{1}", "\\boxed{}", "{", "}", "{}", "\\", "\\frac{1}{2}", "\\text{", "$", "$$", "<answer>",
    "</answer>", "answer", "answer is ", "Answer: ", "The answer is 4. ", "A: ", "Question: ", "\nQuestion: 1\n", "\nQ:",
    '{"answer": ', '"', "'", "(", ")", "*", "**", "**1** ", "-", "- ", "=", "= 1 ", "1", "12 ", "1,", "1,234", "1.",
    ".1", "1/2 ", "1 2 ", "1:", "1e9", "12:30 ", "٣", "½", "−", "$1 ", "1 and ", "1 or ", "one ", "twenty-", "million ",
    "yes", "no", "yes ", "no ", "yes or no ", "Yes. ", "No, ", "not ", "not yes ", "maybe ", "if ", "no reason ", "would ",
    "would not ", "recommend ", "wait, ", "so ", "is ", " ", "\n", "\t", "\r\n", " \n", "\u200b", "\xa0", "é", "是", "👍",
    ".", ". ", "?", "!", ",", ";", ":", "|", "_", "~", "a", "a ", "A ", "(A) ", "\x00", "&lt;", "&lt;think&gt;",
]  # fmt: skip
FRAMES = ["{}", "<think>{}</think> 42 yes", "#### {}", "{}\nAnswer: yes 42 A"]
METRICS = ["yes_no", "gsm8k", "exact_match", "multiple_choice"]
SHORT, LONG = 2_000, 20_000
"""Characters. At the longer one a quadratic pattern takes seconds and a linear one milliseconds."""
REFERENCES = {"yes_no": "yes", "gsm8k": "42", "exact_match": "42", "multiple_choice": "A"}


def seconds(score, text, reference):
    began = time.process_time()
    score(text, reference)
    return time.process_time() - began


def texts(size):
    for atom in ATOMS:
        body = (atom * (size // len(atom) + 1))[:size]
        for frame in FRAMES:
            yield atom, frame, frame.replace("{}", body)


@pytest.mark.parametrize("name", METRICS)
def test_ten_times_the_hostile_text_takes_less_than_thirty_times_as_long(name):
    score = metrics.load(name).score
    slow = []
    for (atom, frame, short), (_, _, long) in zip(texts(SHORT), texts(LONG), strict=True):
        took = seconds(score, long, REFERENCES[name])
        # Below a few milliseconds the clock says more about the machine than about the pattern, and a
        # garbage collection may fall into any one measurement.
        if took > 0.01 and took > 30 * seconds(score, short, REFERENCES[name]):
            took = min(seconds(score, long, REFERENCES[name]) for _ in range(4))
            if took > 0.01 and took > 30 * seconds(score, short, REFERENCES[name]):
                slow.append((atom, frame, took))
    assert not slow


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("atom", ["<think>", "\\boxed{", "#### ", "1,", "\nQ:", "user\n"])
def test_a_megabyte_of_hostile_text_takes_less_than_half_a_second(name, atom):
    text = atom * (1_000_000 // len(atom))
    score = metrics.load(name).score
    assert min(seconds(score, text, REFERENCES[name]) for _ in range(3)) < 0.5
