"""Yes or no in a Chinese text, which states it by a verb and its negation, and often has a word for neither.

A text is read clause by clause. A marked answer (`答案：否`) wins, then the last conclusion (`因此…`), then
an opening that is an answer by itself (`是的，…`), then the last clause that states a verdict.
"""

from __future__ import annotations

import re

from tunebook.metrics.yes_no_words import Answer, bare

_HAN = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_CLAUSES = re.compile(r"[，。！；：、\n,.!;:]+|(?<=[？?])")
_EDGE = " \t\r\n\"'“”‘’「」『』（）()[]【】<>*_`~—-…"
_MARK = re.compile(
    r"(?:答案|回答|结论|結論|判断|判斷|预测|預測|结果|結果|答复|答覆)(?:应该|應該|应|應)?"
    r"(?:[】\])]\s{0,2}[：:]?|[是为為][：:]?|\s?[：:])\s{0,3}(?P<said>[^\n]{1,40})"
)
_CONCLUDES = re.compile(
    r"(?:因此|所以|综上|綜上|总之|總之|总的来说|總的來說|总而言之|由此可见|由此可見|可见|最终|最終|故|综合来看|结论是|因而|于是)"
)
_OPENERS = frozenset(
    {
        "好",
        "好的",
        "好吧",
        "好啊",
        "好嘞",
        "嗯",
        "恩",
        "那么",
        "首先",
        "让我想想",
        "讓我想想",
        "我来分析一下",
        "我來分析一下",
        "你好",
        "您好",
        "当然可以",
    }
)
_ASKED = re.compile(
    r"[吗嗎呢？?]|是否|会不会|會不會|是不是|能不能|有没有|有沒有|要不要|对不对|對不對|喜不喜欢|可不可以|能否|可否"
)
_HEDGED = re.compile(
    r"不太?确定|不太?確定|不知道|不清楚|不好说|不好說|很难说|很難說|取决于|取決於|看情况|看情況|难以(?:判断|确定|回答)|難以(?:判斷|確定|回答)|无法(?:判断|确定|回答|得知|知道)"
    r"|無法(?:判斷|確定|回答|得知)|不能(?:判断|确定|回答)|可能.{0,4}可能不|\A(?:有?可能|不一定)\Z|也许|也許|或许|或許|未知"
)
# Two characters that hold a negation and are none.
_NOT_NEGATED = re.compile(
    r"没错|沒錯|不错|不錯|不仅|不僅|不但|不过|不過|不管|不论|不論|不断|不斷|不久|不少|不止|不同于|不妨|非常|没关系|别的|别人|未来|特别|分别|区别"
)
_NEGATION = re.compile(
    r"不(?=\S)|没有?|沒有?|并非|並非|无法|無法|未(?=能|必|曾|有)|毫无|毫無|难以|難以|绝非|拒绝|反对|反對|怀疑|懷疑|讨厌|討厭|厌恶|避免|缺乏"
)
_WRONG = re.compile(r"错误|錯誤|有误|有誤|错的|錯的|虚假|虛假|假的|不实|否定|负面|負面|消极|消極")
_VERDICT = re.compile(
    r"喜欢|喜歡|喜爱|喜愛|推荐|推薦|感兴趣|感興趣|正确|正確|成立|属于|屬於|支持|同意|赞成|贊成|可以|可能会|可能會|应该会|應該會|会|會|(?<!可)能|符合|建议|建議|适合|適合|值得"
    r"|真实|真實|真的|对的|對的|是的|没错|沒錯|不错|不錯|肯定|正面|积极|積極|[是有对對](?:\Z|[的了])|不是|如此|没有|沒有|不行|不对|不對"
)


def is_chinese(text: str) -> bool:
    """Whether most letters of a text are Chinese."""
    return not text.isascii() and 2 * len(_HAN.findall(text)) > len(_LETTER.findall(text))


def read_chinese(text: str) -> tuple[Answer | None, str | None]:
    """Read yes or no out of a visible answer in Chinese.

    Returns:
        The answer; or None and why there is none: `hedge` or `no_answer_word`.
    """
    marked = [match["said"] for match in _MARK.finditer(text)]
    for said in reversed(marked):
        first = next((part for part in _CLAUSES.split(said) if part.strip(_EDGE)), "")
        answer = _whole(first) or _verdict(first)
        if answer is not None:
            return answer, None
        if _HEDGED.search(said):
            return None, "hedge"
    clauses = [part.strip(_EDGE) for part in _CLAUSES.split(text)]
    clauses = [part for part in clauses if part and part not in _OPENERS]
    for index in reversed(range(len(clauses))):
        concluded = _CONCLUDES.match(clauses[index])
        if concluded:
            rest = [clauses[index][concluded.end() :], *clauses[index + 1 :]]
            for clause in rest:
                if _HEDGED.search(clause):
                    return None, "hedge"
                answer = _whole(clause) or _verdict(clause)
                if answer is not None:
                    return answer, None
    if not clauses:
        return None, "no_answer_word"
    hedged = any(_HEDGED.search(clause) for clause in clauses)
    opening = _whole(clauses[0])
    if opening is not None and not _ASKED.search(text[: text.find(clauses[0]) + len(clauses[0]) + 1]):
        later = {found for clause in clauses[1:3] if (found := _whole(clause) if len(clause) < 4 else None)}
        short = len(text) < 12
        if hedged or (
            short and len(clauses) > 1 and (later - {opening} or clauses[1].startswith(("但不", "但是不")))
        ):
            return None, "hedge"
        return opening, None
    if hedged:
        return None, "hedge"
    for index in reversed(range(len(clauses))):
        clause = clauses[index]
        # "…，我认为否": the last clause may consist of its answer.
        answer = (
            _whole(clause) if index == len(clauses) - 1 and len(clause) < _LONGEST_LAST else None
        ) or _verdict(clause)
        if answer is not None:
            return answer, None
    return None, "no_answer_word"


_LONGEST_LAST = 8
# What is seen, told or supposed is no verdict.
_TELLS = re.compile(
    r"(?:可以|能够?)(?:看|见|听|知|发现|得|推|判断|注意)|讲述|描述|故事|\A(?:如果|假如|要是|若|就|那就)"
)
_SURE = re.compile(
    r"\A(?:我(?:觉得|认为|想|看|会说)|我覺得|我認為|当然|當然|肯定|应该|應該|绝对|絕對|确实|確實|可能|大概|也许|很|其实|對|对啊|我的答案是|那)+"
)


def _whole(clause: str) -> Answer | None:
    """The answer of a clause that consists of it, with a word of certainty before it or without."""
    clause = clause.strip(_EDGE).rstrip("的了啊呀吧呢哦")
    if not clause or len(clause) > 12:
        return None
    return bare(clause) or bare(_SURE.sub("", clause))


def _verdict(clause: str) -> Answer | None:
    """The answer that a clause states by its verb: negated an odd number of times or not."""
    clause = clause.strip(_EDGE)
    if (
        _TELLS.search(clause)
        or _ASKED.search(clause)
        or _HEDGED.search(clause)
        or not (_VERDICT.search(clause) or _WRONG.search(clause))
    ):
        return None
    counted = _NOT_NEGATED.sub("", clause)
    negations = len(_NEGATION.findall(counted)) + len(_WRONG.findall(counted))
    return "no" if negations % 2 else "yes"
