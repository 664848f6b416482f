"""Classification: reads which of a set's labels an answer settles on, in any language.

Source: the rules are ours; the figures are the usual ones of classification, as scikit-learn has them.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tunebook.metrics import two_classes
from tunebook.metrics.response import fold, visible
from tunebook.metrics.turns import takes_back
from tunebook.types import UNPARSED, Figure, Metric, Score, with_options

NAME = "classification"
MOST_LABELS = 50
"""More are no classes but free text."""
_MOST_OWN_FIGURES = 20
"""Of so many labels each has figures of its own; of more, the confusion table shows them."""


class LabelReading(NamedTuple):
    """What was read, and how."""

    label: str | None
    rule: str | None
    """None exactly when `label` is."""
    reason: str | None
    """None exactly when `label` is not."""


def _plain(text: str) -> str:
    """One form of all spellings of a label: case, look-alike characters, and `_` for a blank."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", fold(text)).casefold())
    return " ".join(text.replace("_", " ").split())


# Words for "label" after which an answer stands, in the languages most used in fine-tuning data.
_CUE = (
    r"(?:label|class|category|classification|classified\sas|classify\s(?:it|this)\sas|sentiment|intent|topic|type"
    r"|answer|prediction|verdict|result|output|final\sanswer|etikett|klasse|kategorie|antwort|ergebnis|étiquette"
    r"|catégorie|classe|réponse|résultat|etiqueta|categoría|clase|respuesta|resultado|categoria|resposta|risposta"
    r"|etichetta|метка|класс|категория|ответ|результат|التصنيف|الفئة|الإجابة|النتيجة|लेबल|श्रेणी|उत्तर|nhãn|loại"
    r"|đáp\sán|label\snya|kategori|jawaban|etiket|sınıf|cevap|etykieta|klasa|odpowiedź|标签|標籤|类别|類別|分类|分類"
    r"|答案|结果|結果|结论|判断|判斷|情感|意图|主题|ラベル|カテゴリ|クラス|回答|答え|판정|라벨|레이블|분류|카테고리|정답|답)"
)
_IS = (
    r"(?:\s(?:is|are|would\sbe|should\sbe|must\sbe|ist|lautet|wäre|est|es|è|é|is\sdefinitely|likely|that\sof|as)\b"
    r"|是|为|為|は|은|는|이|가|\s?(?:=>|->|→)|\s?[:=：-]|\s(?=[\"'(`*\[]))"
)
_TO_CUE = re.compile(rf"\A.*?{_CUE}[\s:：=是为]*")
_OPENING = (
    r"[\s*_`\"'“”‘’«»(\[{<「『【#>-]{0,6}(?:(?:the|a|an|class|label|category|als|comme)\s)?"
    r"[\s*_`\"'“‘(\[]{0,4}"
)
_DENIED = re.compile(
    r"(?:\bnot(?:\sa|\san|\sthe|\sreally)?|n't(?:\sa|\san)?|\bnever|\bneither|\bnor|\bno|\bnicht|\bkeine?|\bkein"
    r"|\bpas(?:\sun|\sune)?|\bne|\bno\ses|\bno|\bnão(?:\sé)?|\bnon(?:\sè)?|\bне|\brather\sthan|\binstead\sof|\bunlike|\bexcept|\bexcludes?"
    r"|不是|并非|並非|不属于|不屬於|而非|而不是|排除|不|非|ليس|ليست|नहीं|không\sphải(?:\slà)?|bukan|değil)[\s\"'*`“]{0,3}\Z"
)
_DENIED_AFTER = re.compile(
    r"[\"'*`”]{0,3}(?:\s?(?:is|are|would\sbe|can\sbe|seems)?\s?(?:not\b|n't|wrong|incorrect|ruled\sout|unlikely)"
    r"|\sdeğil|\sनहीं|ではな|でない|じゃな|이\s?아니|가\s?아니|不对|不對|不符)"
)
_UNSURE = re.compile(
    r"\b(?:(?:either|between|could\sbe|might\sbe|may\sbe|not\ssure|unsure|uncertain|hard\sto\s(?:say|tell)|depends)\b)"
    r"|不确定|不確定|无法判断|無法判斷|难以判断|可能是也可能"
)
_UNSPACED_RANGES = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_UNSPACED = re.compile(f"[{_UNSPACED_RANGES}]")
_WORD = rf"[^\W_{_UNSPACED_RANGES}]"
_BESIDE = re.compile(
    r"[\"'*`)\]]{0,3}\s?(?:/|,|or|and|oder|ou|o|или|或|和|、)\s?(?:a\s|an\s|the\s)?[\"'*`(]{0,3}"
)
_EDGES = " \t\r\n.,:;!?*_`\"'()[]{}<>$#|-–—。、，：；！？（）【】「」『』“”‘’«»।۔؟"
_TAIL = 4_000


def _core(text: str) -> str:
    """A text without what surrounds it, but with the sign of a number."""
    core = text.strip(_EDGES)
    at = text.find(core)
    return f"-{core}" if core[:1].isdigit() and text[max(0, at - 1) : at] == "-" else core


class _Reader:
    """Reads answers that are one of these labels.

    Args:
        labels: As the data spells them.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._of = {_plain(label): label for label in labels}
        self._bare = {_core(form): label for form, label in self._of.items()}
        # The longest first: "not spam" is no "spam".
        forms = sorted(self._of, key=len, reverse=True)
        one = "|".join(self._pattern(form) for form in forms)
        self._mention = re.compile(f"(?:{one})")
        self._slot = re.compile(rf"{_CUE}{_IS}{{1,2}}{_OPENING}(?P<label>{one})")

    @staticmethod
    def _pattern(form: str) -> str:
        body = r"[\s_-]{1,2}".join(map(re.escape, form.split()))
        # A word, not a part of one; scripts without blanks have no such borders, and may stand beside others.
        before = "" if _UNSPACED.match(form) else rf"(?<!{_WORD})(?<!{_WORD}-)(?<!\d[.,])"
        before += r"(?<!-)" if form[0].isdigit() else ""
        after = "" if _UNSPACED.match(form[-1]) else rf"(?!{_WORD}|-[^\W\d_]|[.,]\d)"
        return before + body + after

    def _label(self, text: str) -> str:
        form = _plain(text)
        return self._of.get(form) or self._of[" ".join(re.split(r"[\s_-]+", form))]

    def read(self, text: str) -> LabelReading:
        """Read a model's whole output: the label, the rule that read it or the reason that nothing did."""
        said = visible(text)
        if said.reason is not None:
            return LabelReading(None, None, said.reason)
        text = _plain_lines(said.text)
        bare = self._bare.get(_core(" ".join(text.split())))
        if bare is not None:
            return LabelReading(bare, "bare", None)
        given = self._from_json(said.text)
        if given is not None:
            return LabelReading(given, "json", None)
        tail = text[-_TAIL:]
        last = tail.rstrip().rpartition("\n")[2]
        final = self._bare.get(_core(last)) or self._bare.get(_core(_TO_CUE.sub("", last)))
        if final is not None:
            return LabelReading(final, "final_line", None)
        slots = [m for m in self._slot.finditer(tail) if not self._is_denied(tail, m.start("label"), m.end())]
        if slots:
            slot = slots[-1]
            return self._settled(tail, slot["label"], slot.end(), "slot")
        return self._from_mentions(tail, text)

    def _from_json(self, text: str) -> str | None:
        found = None
        for match in re.finditer(r"\{[^{}]{1,400}\}", text):
            try:
                values = json.loads(match[0])
            except ValueError:
                continue
            if isinstance(values, dict):
                named = [self._bare.get(_core(_plain(str(value)))) for value in values.values()]
                labels = {label for label in named if label is not None}
                found = labels.pop() if len(labels) == 1 else None
        return found

    def _from_mentions(self, tail: str, text: str) -> LabelReading:
        mentions = list(self._mention.finditer(tail))
        stated = [one for one in mentions if not self._is_denied(tail, one.start(), one.end())]
        if not stated:
            return LabelReading(None, None, "denied" if mentions else "no_label")
        labels = {self._label(one[0]) for one in stated}
        first = stated[0]
        opens = len(text) == len(tail) and not tail[: first.start()].strip(_EDGES)
        if opens and re.match(r"[\"'*`)\]]{0,3}(?:[.,;:!。，；：！\n]|\s[-–—(]|\s?\Z)", tail[first.end() :]):
            beside = re.match(r"(?:[^.!?\n。]|\.(?=\d))*", tail[first.end() :])
            others = {self._label(one[0]) for one in self._mention.finditer(beside[0])} if beside else set()
            if not others - {self._label(first[0])}:
                return self._settled(tail, first[0], first.end(), "first_label")
        if len(labels) > 1:
            return LabelReading(None, None, "several_labels")
        if _UNSURE.search(tail):
            return LabelReading(None, None, "hedge")
        return self._settled(tail, stated[-1][0], stated[-1].end(), "only_label")

    def _settled(self, tail: str, found: str, end: int, rule: str) -> LabelReading:
        label = self._label(found)
        beside = re.match(
            r"[\"'*`)\]]{0,3}\s?(?:/|,|or|and|oder|ou|o|или|或|和|、)\s?(?:a\s|an\s|the\s)?[\"'*`(]{0,3}",
            tail[end:],
        )
        if beside:
            another = self._mention.match(tail, end + beside.end())
            if another and self._label(another[0]) != label:
                return LabelReading(None, None, "several_labels")
        if takes_back(tail, end):
            return LabelReading(None, None, "hedge")
        return LabelReading(label, rule, None)

    @staticmethod
    def _is_denied(text: str, start: int, end: int) -> bool:
        return bool(_DENIED.search(text[max(0, start - 24) : start]) or _DENIED_AFTER.match(text, end))

    def reference(self, text: str) -> str:
        """Return the label that a reference is.

        Raises:
            ValueError: It is none, or says several.
        """
        found = self.read(text).label
        if found is None:
            shown = ", ".join(map(repr, list(self._of.values())[:10]))
            raise ValueError(f"the reference must be one of the labels {shown}, not {text[:80]!r}")
        return found


def _plain_lines(text: str) -> str:
    return "\n".join(_plain(line) for line in text.splitlines())


def _fit(references: Sequence[str], positive: str | None = None) -> Metric:
    """The metric with the labels that the references are.

    Raises:
        ValueError: There are more than 50 of them, or fewer than two.
    """
    counts = Counter(_label_of(reference) for reference in references)
    if len(counts) > MOST_LABELS:
        raise ValueError(
            f"the references have {len(counts)} different texts, and at most {MOST_LABELS} are classes: "
            'name these with "labels", or use exact_match'
        )
    if len(counts) < 2:
        raise ValueError(
            f'all references are {next(iter(counts), "")!r}: name the other classes with "labels"'
        )
    return configured({"labels": sorted(counts), **({"positive": positive} if positive is not None else {})})


def _label_of(reference: str) -> str:
    said = visible(reference)
    if said.reason is not None:
        raise ValueError(
            "the reference is blank" if said.reason == "empty" else "the reference ends in a thought"
        )
    return " ".join(said.text.split())


def _unfit_score(prediction: str, reference: str) -> Score:  # noqa: ARG001
    """Without labels nothing is read; the reference is its own label."""
    return Score(
        values={"accuracy": 0.0}, parsed=None, reference=_label_of(reference), reason="labels_unknown"
    )


_COMMON = (
    Figure(name="accuracy"),
    Figure(name="macro_f1", label="macro-F1"),
    Figure(name="weighted_f1", label="weighted F1", detail=True),
    Figure(name="macro_precision", label="macro precision", detail=True),
    Figure(name="macro_recall", label="macro recall", detail=True),
    UNPARSED,
    Figure(name="majority_accuracy", label="majority baseline", descriptive=True, detail=True),
    Figure(name="majority_macro_f1", label="macro-F1 of the majority", descriptive=True, detail=True),
)
_OF_TWO = (
    Figure(name="auroc", label="AUROC", detail=True),
    Figure(name="average_precision", detail=True),
    Figure(name="brier", label="Brier score", smaller_is_better=True, detail=True),
    Figure(name="ece", label="calibration error", smaller_is_better=True, detail=True),
    Figure(name="class_mass", label="probability on the labels", descriptive=True, detail=True),
    Figure(name="class_mass_median", label="median probability on the labels", descriptive=True, detail=True),
)


class _Classes:
    """The metric for one list of labels."""

    def __init__(self, labels: tuple[str, ...], positive: str | None) -> None:
        # The positive class comes first: a margin is that of the first against the second.
        self.labels = tuple(sorted(labels, key=lambda label: label != positive)) if positive else labels
        self.positive = positive
        self.reader = _Reader(labels)
        self._wanted = lru_cache(maxsize=1024)(self.reader.reference)

    def score(self, prediction: str, reference: str) -> Score:
        """Compare the label in `prediction` with the one in `reference`.

        Raises:
            ValueError: The reference is none of the labels: the data is wrong, not the model.
        """
        wanted, reading = self._wanted(reference), self.reader.read(prediction)
        return Score(
            values={"accuracy": float(reading.label == wanted)},
            parsed=reading.label,
            reference=wanted,
            rule=reading.rule,
            reason=reading.reason,
        )

    def aggregate(self, scores: Sequence[Score]) -> Mapping[str, float]:
        """Figures over all scores; an unparsed answer is wrong, and no class.

        Means are over the labels that occur in references or answers, and ratios with nothing below are 0,
        both as scikit-learn has it.
        """
        if not scores:
            return {}
        n = len(scores)
        true = Counter(score.reference for score in scores)
        said = Counter(score.parsed for score in scores)
        right = Counter(score.reference for score in scores if score.parsed == score.reference)
        occurring = [label for label in self.labels if true[label] or said[label]]
        precision = {label: right[label] / said[label] if said[label] else 0.0 for label in occurring}
        recall = {label: right[label] / true[label] if true[label] else 0.0 for label in occurring}
        f1 = {label: 2 * right[label] / (true[label] + said[label]) for label in occurring}
        most = max(true.values())
        figures = {
            "accuracy": sum(right.values()) / n,
            "macro_f1": math.fsum(f1.values()) / len(occurring),
            "weighted_f1": math.fsum(f1[label] * true[label] for label in occurring) / n,
            "macro_precision": math.fsum(precision.values()) / len(occurring),
            "macro_recall": math.fsum(recall.values()) / len(occurring),
            "majority_accuracy": most / n,
            "majority_macro_f1": 2 * most / (n + most) / len(true),
            "unparsed_rate": said[None] / n,
        }
        if self.positive is not None:
            figures["f1"] = f1.get(self.positive, 0.0)
            figures["precision"] = precision.get(self.positive, 0.0)
            figures["recall"] = recall.get(self.positive, 0.0)
        if len(self.labels) <= _MOST_OWN_FIGURES:
            for label in occurring:
                figures[_own("f1", label)] = f1[label]
                figures[_own("precision", label)] = precision[label]
                figures[_own("recall", label)] = recall[label]
        if len(self.labels) == 2 and all({"margin", "class_mass"} <= score.values.keys() for score in scores):
            figures |= two_classes.from_margins(scores, self.labels[0])
        return figures

    def figures(self) -> tuple[Figure, ...]:
        """Every figure `aggregate` may return."""
        found = list(_COMMON)
        if self.positive is not None:
            names = ("f1", "F1"), ("precision", "precision"), ("recall", "recall")
            found[2:2] = [Figure(name=name, label=f"{label} ({self.positive})") for name, label in names]
        if len(self.labels) == 2:
            found += _OF_TWO
        if len(self.labels) <= _MOST_OWN_FIGURES:
            found += [
                Figure(name=_own(name, label), label=f"{word} ({label})", may_be_undefined=True, detail=True)
                for label in self.labels
                for name, word in (("f1", "F1"), ("precision", "precision"), ("recall", "recall"))
            ]
        return tuple(found)


def _own(figure: str, label: str) -> str:
    return f"{figure}_{'_'.join(label.split())}"


def configured(options: Mapping[str, Any]) -> Metric:
    """Return the metric with its options.

    Args:
        options: `labels`, a list of texts; without it they come from the references. `positive`, one of them.

    Raises:
        ValueError: An option is none, or has a wrong value.
    """
    unknown = sorted(options.keys() - {"labels", "positive"})
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no option; there are labels and positive")
    positive = options.get("positive")
    positive = None if positive is None else str(positive)
    labels = options.get("labels")
    if labels is None:
        return Metric(
            name=with_options(NAME, options),
            score=_unfit_score,
            aggregate=lambda scores: {},  # noqa: ARG005
            figures=(*_COMMON, *_OF_TWO, *(map(_named, ("f1", "precision", "recall")) if positive else ())),
            figures_complete=False,
            select_by="macro_f1",
            fit=lambda references: _fit(references, positive),
        )
    if not isinstance(labels, list) or not all(type(label) in (str, int, bool) for label in labels):
        raise ValueError(f'"labels" is {labels!r:.80}, not a list of texts')
    names = tuple(str(label) for label in labels)
    plain = {_core(_plain(name)) for name in names}
    if not 2 <= len(names) <= MOST_LABELS or len(plain) != len(names) or "" in plain:
        raise ValueError(f'"labels" must be 2 to {MOST_LABELS} different texts, not {labels!r:.200}')
    if positive is not None and positive not in names:
        raise ValueError(f'"positive" is {positive!r}, which is none of the labels {", ".join(names)}')
    found = _Classes(names, positive)
    given = {"labels": list(names), **({"positive": positive} if positive is not None else {})}
    return Metric(
        name=with_options(NAME, given),
        score=found.score,
        aggregate=found.aggregate,
        figures=found.figures(),
        select_by="macro_f1",
        classes={label: (label, f" {label}") for label in found.labels},
        default_max_new_tokens=16,
    )


def _named(name: str) -> Figure:
    return Figure(name=name)


METRIC = configured({})
