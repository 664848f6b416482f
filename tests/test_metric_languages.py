"""The table of languages in docs/metrics.md: each cell is tried, and so are the tokenizers of ROUGE and BLEU."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebook import metrics
from tunebook.cli.main import cli
from tunebook.data.registry import parse_metrics
from tunebook.errors import TunebookError

DOCS = Path(__file__).parent.parent / "docs" / "metrics.md"

# Yes, no, 1,018, choice C: each as a sentence. Then two sentences about different things.
SAMPLES = {
    "English": ("Yes, she will like it.", "No, she will not like it.", "So there are 1,018 apples.",
                "The correct answer is C.", "The company grew fast last year.", "Rain fell on every old street."),
    "Chinese": ("是的，她会喜欢。", "不，她不会喜欢。", "一共有1,018个苹果。", "正确答案是C。", "公司去年增长很快。", "雨落在每条老街上。"),
    "Japanese": ("はい、彼女は好きでしょう。", "いいえ、好きではありません。", "全部で1,018個です。", "正解はCです。",
                 "わたしたちの会社は大きくなりました。", "古い通りに雨が降った。"),
    "Korean": ("네, 좋아할 것입니다.", "아니요, 좋아하지 않을 것입니다.", "모두 1,018개입니다.", "정답은 C입니다.",
               "회사는 작년에 빠르게 성장했다.", "오래된 거리마다 비가 내렸다."),
    "German": ("Ja, sie wird ihn mögen.", "Nein, sie mag ihn nicht.", "Die Antwort ist 1.018.",
               "Die richtige Antwort ist C.", "Die Firma wuchs im letzten Jahr schnell.", "Regen fiel auf alle alten Wege."),
    "French": ("Oui, elle l'aimera.", "Non, elle ne l'aimera pas.", "La réponse est 1 018.", "La bonne réponse est C.",
               "La société a vite grandi.", "Il pleuvait sur chaque rue."),
    "Spanish": ("Sí, le gustará.", "No, no le gustará.", "La respuesta es 1.018.", "La respuesta correcta es C.",
                "La empresa creció mucho.", "Llovía sobre cada calle."),
    "Portuguese": ("Sim, ela vai gostar.", "Não, ela não vai gostar.", "A resposta é 1.018.", "A resposta correta é C.",
                   "A empresa cresceu muito.", "Chovia sobre cada rua."),
    "Russian": ("Да, ей понравится.", "Нет, ей не понравится.", "Ответ: 1 018 яблок", "Правильный ответ: C",
                "Компания быстро выросла.", "Дождь шёл на старой улице."),
    "Arabic": ("نعم، سيعجبها.", "لا، لن يعجبها.", "الإجابة هي ١٠١٨", "الإجابة الصحيحة هي C", "نمت الشركة بسرعة.",
               "هطل المطر على الشارع القديم."),
    "Hindi": ("हाँ, उसे पसंद आएगा।", "नहीं, उसे पसंद नहीं आएगा।", "उत्तर १,०१८ है।", "सही उत्तर C है।", "कंपनी तेज़ी से बढ़ी।",
              "पुरानी सड़क पर बारिश हुई।"),
    "Vietnamese": ("Có, cô ấy sẽ thích.", "Không, cô ấy sẽ không thích.", "Đáp án là 1.018.", "Đáp án đúng là C.",
                   "Công ty tăng trưởng nhanh.", "Mưa rơi trên mỗi con phố cũ."),
    "Indonesian": ("Ya, dia akan suka.", "Tidak, dia tidak akan suka.", "Jawabannya adalah 1.018.",
                   "Jawaban yang benar adalah C.", "Perusahaan itu tumbuh cepat.", "Hujan turun di jalan tua."),
    "Turkish": ("Evet, sevecek.", "Hayır, sevmeyecek.", "Cevap 1.018.", "Doğru cevap C.", "Firma hızla büyüdü.",
                "Eski sokağa yağmur yağdı."),
    "Thai": ("ใช่ เธอจะชอบ", "ไม่ เธอจะไม่ชอบ", "คำตอบคือ ๑๐๑๘", "คำตอบคือ C", "บริษัทเติบโตเร็วมาก", "ฝนตกบนถนนเก่า"),
}  # fmt: skip
ANSWERS = {"yes_no": ("yes", "no"), "gsm8k": ("1018", "18"), "multiple_choice": ("C", "B")}
SENTENCE = {"yes_no": 0, "gsm8k": 2, "multiple_choice": 3}
FIGURE = {"yes_no": "accuracy", "gsm8k": "exact_match", "multiple_choice": "accuracy", "exact_match": "exact_match",
          "rouge": "rougeL", "bleu": "sentence_bleu", "chrf": "sentence_chrf"}  # fmt: skip


def table():
    lines = iter(DOCS.read_text(encoding="utf-8").splitlines())
    head = next(line for line in lines if line.startswith("| language"))
    columns = [cell.strip().strip("`") for cell in head.strip("|").split("|")][1:]
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        language, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        for column, cell in zip(columns, cells, strict=True):
            yield pytest.param(language, column, cell, id=f"{language}-{column}")


def metric_of(column):
    name, _, tokenize = column.partition(" ")
    return metrics.load(f'{name}{{"tokenize": "{tokenize}"}}' if tokenize else name), name


@pytest.mark.parametrize(("language", "column", "cell"), list(table()))
def test_each_cell_of_the_table_of_languages_is_true(language, column, cell):
    metric, name = metric_of(column)
    sample = SAMPLES[language]
    if name in ANSWERS:
        right, wrong = ANSWERS[name]
        said = sample[SENTENCE[name]]
        assert metric.score(said, right).values[FIGURE[name]] == 1.0
        assert metric.score(said, wrong).values[FIGURE[name]] == 0.0
        assert cell == "read"
        return
    text, other = sample[4:]
    if cell == "refused":
        with pytest.raises(ValueError, match=r"tokenize|chrf"):
            metric.score(text, text)
        return
    assert cell == "read"
    best = 100.0 if name in ("bleu", "chrf") else 1.0
    assert metric.score(text, text).values[FIGURE[name]] == pytest.approx(best)
    assert metric.score(other, text).values[FIGURE[name]] < best / 2


def test_the_table_has_every_sample():
    assert {parameter.values[0] for parameter in table()} == {*SAMPLES}


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_no_is_read_where_yes_is(sample):
    metric = metrics.load("yes_no")
    assert metric.score(sample[1], "no").parsed == "no"


# ------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize(
    ("tokenize", "prediction", "reference", "rouge1"),
    [
        ("char", "你好吗", "你好", 0.8),
        ("char", "Ａ，ｂ", "a b", 0.0),
        ("words", "он купил книги", "Он купил две книги.", 6 / 7),
        ("words", "कंपनी बढ़ी", "कंपनी बढ़ी।", 1.0),
        ("auto", "the cats sat", "the cat sat", 1.0),
        ("auto", "你好吗", "你好", 0.8),
        ("auto", "он купил книги", "Он купил две книги.", 6 / 7),
        ("google", "the cats sat", "the cat sat", 1.0),
    ],
)
def test_rouge_counts_in_the_units_that_were_chosen(tokenize, prediction, reference, rouge1):
    metric = metrics.load(f'rouge{{"tokenize": "{tokenize}"}}')
    assert metric.score(prediction, reference).values["rouge1"] == pytest.approx(rouge1)


@pytest.mark.parametrize(
    ("tokenize", "text", "named"),
    [("zh", "天気がいいですね", "zh"), ("auto", "天気がいいですね", "char"), ("auto", "天气很好", "zh"), ("auto", "a b c d", "13a")],
)  # fmt: skip
def test_bleu_cuts_as_sacrebleu_does(tokenize, text, named):
    from sacrebleu.metrics import BLEU

    metric = metrics.load(f'bleu{{"tokenize": "{tokenize}"}}')
    if tokenize == "zh":
        with pytest.raises(ValueError, match='"char"'):
            metric.score(text, text)
        return
    score = metric.score(text[:-1], text)
    wanted = BLEU(effective_order=True, tokenize=named).sentence_score(text[:-1], [text])
    assert score.values["sentence_bleu"] == wanted.score
    assert "tok:auto" in metric.signature()


def test_bleu_of_chinese_words_is_sacrebleus_own():
    from sacrebleu.metrics import BLEU

    metric = metrics.load('bleu{"tokenize": "zh"}')
    pairs = [
        ("今天天气很好我们去公园玩", "今天天气很好，我们去公园玩"),
        ("他喜欢 AI 电影", "他不喜欢 AI 电影"),
    ]
    found = metric.aggregate([metric.score(*pair) for pair in pairs])
    wanted = BLEU(tokenize="zh").corpus_score([p for p, _ in pairs], [[r for _, r in pairs]])
    assert found["bleu"] == pytest.approx(wanted.score)
    assert "tok:zh" in metric.signature()


@pytest.mark.parametrize("name", ["rouge", "bleu"])
def test_an_unknown_tokenizer_is_refused_with_those_there_are(name):
    with pytest.raises(TunebookError, match=r"tokenize is one of .*auto.*, not 'zhh'"):
        metrics.load(f'{name}{{"tokenize": "zhh"}}')


@pytest.mark.parametrize(
    ("name", "tokenize", "missing", "install"),
    [
        ("rouge", "zh", "jieba", "pip install jieba rouge-chinese nltk"),
        ("bleu", "ja-mecab", "MeCab", r"sacrebleu\[ja\]"),
        ("bleu", "ko-mecab", "mecab_ko", r"sacrebleu\[ko\]"),
    ],
)
def test_a_missing_package_is_one_error_with_the_line_that_installs_it(
    name, tokenize, missing, install, monkeypatch
):
    from tunebook.metrics import bleu, rouge

    monkeypatch.setitem(sys.modules, missing, None)
    rouge._chinese_tools.cache_clear()
    bleu._bleu.cache_clear()
    text = {"zh": "天气很好", "ja-mecab": "天気がいい", "ko-mecab": "날씨가 좋다"}[tokenize]
    with pytest.raises(TunebookError) as error:
        metrics.load(f'{name}{{"tokenize": "{tokenize}"}}').score(text, text)
    assert error.match(tokenize)
    assert install.replace("\\", "") in error.value.fix


def test_rouge_of_chinese_equals_llama_factorys_own():
    # The numbers are those of llamafactory 0.9.5, ComputeSimilarity, with jieba 0.42.1, rouge-chinese 1.0.3.
    pytest.importorskip("jieba")
    pytest.importorskip("rouge_chinese")
    metric = metrics.load('rouge{"tokenize": "zh"}')
    path = Path(__file__).parent / "cases" / "rouge_zh.jsonl"
    for case in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        values = metric.score(case["predict"], case["label"]).values
        ours = [100 * values[name] for name in ("rouge1", "rouge2", "rougeL")] + [values["lf_bleu4"]]
        assert ours == pytest.approx(case["figures"], abs=1e-9)


def test_an_entry_asks_for_a_tokenizer_and_the_name_carries_it():
    (spec,) = parse_metrics({"name": "rouge", "tokenize": "char", "max_samples": 5}, "entry")
    assert (spec.name, spec.max_samples) == ('rouge{"tokenize": "char"}', 5)
    ((metric, _),) = metrics.load_asked([spec])
    assert (metric.name, metric.short_name) == (spec.name, "rouge")
    assert metric.score("你好吗", "你好").values["rouge1"] == pytest.approx(0.8)


def test_one_metric_with_two_tokenizers_is_named_twice():
    with pytest.raises(TunebookError, match="names 'rouge' twice"):
        parse_metrics(["rouge", {"name": "rouge", "tokenize": "char"}], "entry")


def test_a_metric_without_options_of_its_own_takes_none():
    with pytest.raises(TunebookError, match="unknown option 'tokenize'"):
        parse_metrics({"name": "gsm8k", "tokenize": "char"}, "entry")
    with pytest.raises(TunebookError, match="'gsm8k' has no options of its own"):
        metrics.load('gsm8k{"tokenize": "char"}')


def test_score_takes_a_metric_with_its_options(tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"predict": "你好吗", "label": "你好"}\n', encoding="utf-8")
    records = tmp_path / "records.jsonl"
    arguments = [
        "score",
        'rouge{"tokenize": "char"}',
        str(file),
        "--json",
        "--records",
        str(records),
        "--workers",
        "2",
    ]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["figures"]["rouge1"]["value"] == pytest.approx(0.8)
