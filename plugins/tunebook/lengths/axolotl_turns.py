"""Where Axolotl's `type: chat_template` finds the answers in a rendered conversation.

The turn is rendered again with a placeholder, and what differs is the answer; so this is done here, character
by character (axolotl/prompt_strategies/chat_template.py: `_find_turn_from_text`, `_tokenize_single_prompt`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunebook.lengths.chat_template import ChatTemplate

# Two, since a template may write a character beside one of them that it begins or ends with itself.
_PLACEHOLDERS = ("[[dummy_message]]", "zzdummymessagezz")
_END_WITHIN = 3
"""Tokens between an answer and the end token that is learned with it."""


class Span(NamedTuple):
    """Half-open range."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What of a conversation is learned."""

    roles: frozenset[str]
    everything: bool
    """`train_on_inputs`."""
    on_eos: str | None
    """`turn`, `all`, `last` or `none`: which end tokens are learned."""
    on_eot: str | None


def labelled(
    turns: Sequence[Mapping[str, Any]],
    template: ChatTemplate,
    text: str,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    learning: Learning,
    *,
    eos: int | None,
    eot: frozenset[int],
) -> list[bool]:
    """Return for each token of a conversation whether it is learned.

    Args:
        turns: The conversation as it is rendered.
        template: That renders it.
        text: The rendered conversation.
        ids: Its tokens.
        offsets: The characters of `text` that each token stands for.
        learning: The block's keys.
        eos: The tokenizer's EOS.
        eot: Tokens that end a turn.
    """
    learned = [False] * len(ids)
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    last = {"eot": -1, "eos": -1}
    options = (("eot", eot, learning.on_eot), ("eos", frozenset([eos]), learning.on_eos))
    for place, turn in enumerate(turns):
        wanted = learning.everything or turn.get("role") in learning.roles
        if not wanted and "all" not in (learning.on_eos, learning.on_eot):
            continue
        span = _find_turn(turns, place, template, text, starts, ends)
        if wanted and span is not None:
            learned[span.start : span.end] = [True] * (span.end - span.start)
        after = span.end if span is not None else -1
        for name, tokens, option in options:
            found = _first(ids, tokens, after)
            if found == -1 or abs(found - after) > _END_WITHIN:
                continue
            last[name] = found
            if option == "all" or (option == "turn" and wanted):
                learned[found] = True
    for name, _, option in options:
        if option == "last" and last[name] != -1:
            learned[last[name]] = True
    return learned


def runs(learned: Sequence[bool]) -> tuple[list[tuple[int, int]], int]:
    """Return the lengths of what is not learned and what is, by turns, and of what stands behind the last."""
    found: list[tuple[int, int]] = []
    counts = [0, 0]
    for flag in learned:
        if not flag and counts[1]:
            found.append((counts[0], counts[1]))
            counts = [0, 0]
        counts[flag] += 1
    if counts[1]:
        found.append((counts[0], counts[1]))
        counts = [0, 0]
    return found, counts[0]


def merge(lengths: Sequence[tuple[int, bool]]) -> tuple[list[tuple[int, int]], int]:
    """Return (prompt, answer) lengths of a row given in parts, and what stands behind the last answer."""
    found: list[tuple[int, int]] = []
    prompt = answer = 0
    for size, learned in lengths:
        if learned:
            answer += size
            continue
        if answer:
            found.append((prompt, answer))
            prompt = answer = 0
        prompt += size
    if answer:
        return [*found, (prompt, answer)], 0
    return found, prompt


def content_span(turns: Sequence[Mapping[str, Any]], place: int, template: ChatTemplate, text: str) -> Span:
    """Return the characters of `text`, the rendered conversation, that the content of one turn stands for."""
    spans = []
    for placeholder in _PLACEHOLDERS:
        turn = {"role": turns[place].get("role"), "content": placeholder}
        other = template.render([*turns[:place], turn, *turns[place + 1 :]])
        spans.append(_difference(text, other))
    return Span(min(span.start for span in spans), max(span.end for span in spans))


def _find_turn(
    turns: Sequence[Mapping[str, Any]],
    place: int,
    template: ChatTemplate,
    text: str,
    starts: Sequence[int],
    ends: Sequence[int],
) -> Span | None:
    start, end = content_span(turns, place, template, text)
    if end <= start:
        return None
    first, behind = bisect_right(ends, start), bisect_left(starts, end)
    return Span(first, behind) if first < behind else None


def _difference(text: str, other: str) -> Span:
    """The characters of `text` between what both begin with and what both end with."""
    limit = min(len(text), len(other))
    start = _shared(text, other, limit)
    return Span(start, len(text) - _shared(text[::-1], other[::-1], limit - start))


def _shared(left: str, right: str, limit: int) -> int:
    """Length of the shared beginning, by halving: comparing slices is done in C."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _first(ids: Sequence[int], wanted: frozenset[Any], start: int) -> int:
    # As upstream, where -1 stands for "no turn" and means the last token to a list.
    return next((place for place in range(start, len(ids)) if ids[place] in wanted), -1)
