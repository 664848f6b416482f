"""Long rows: the same numbers as the stock model, with bounded logits, in pieces, within bounded memory.

Runs in both environments, since the two engines pin different versions of transformers and PEFT.
"""

import importlib.util
import json
import subprocess
import sys

import pytest
from engine_cases import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.axolotl]

# With its kernels installed, Qwen3.5's linear attention wants a GPU.
ARCHITECTURES = ["qwen3", "gemma2", "gemma3", *([] if importlib.util.find_spec("fla") else ["qwen3_5"])]
LENGTHS, ANSWERS = [97, 60, 9], [41, 3, 8]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """By architecture: a function that loads the tiny model, its sliding window shorter than the rows."""
    folder = tmp_path_factory.mktemp("long")

    def load(name, **options):
        import transformers

        path = folder / name
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                # In this process: importing it all again would cost more than every test here.
                patch.syspath_prepend(ROOT / "scripts")
                from make_tiny_model import build

                path.mkdir()
                build(name, path)
        config = transformers.AutoConfig.from_pretrained(path)
        if name.startswith("gemma"):
            config.sliding_window = 24
        kind = "AutoModelForImageTextToText" if name == "qwen3_5" else "AutoModelForCausalLM"
        loaded = getattr(transformers, kind).from_pretrained(path, config=config, **options)
        return loaded.eval()

    return load


@pytest.fixture(scope="module")
def rows():
    """Random rows of different lengths; the first has a second supervised span."""
    import torch

    generator = torch.Generator().manual_seed(1)
    found = []
    for index, (length, answer) in enumerate(zip(LENGTHS, ANSWERS, strict=True)):
        ids = torch.randint(20, 400, (length,), generator=generator).tolist()
        labels = [-100] * (length - answer) + ids[length - answer :]
        found.append({"index": index, "input_ids": ids, "labels": labels, "answer_start": length - answer})
    found[0]["labels"][5:9] = found[0]["input_ids"][5:9]
    return found


@pytest.fixture(scope="module")
def batch(rows):
    from tunebook.hooks.batches import collate

    return collate(rows, pad_id=0)


def stock(model, batch):
    """Loss sum, argmax over the supervised positions: from all logits, row by row, as the engines do."""
    import torch

    found = []
    for row in range(len(batch.indices)):
        keep = batch.inputs["attention_mask"][row].bool()
        ids, labels = batch.inputs["input_ids"][row][keep][None], batch.labels[row][keep][None]
        with torch.no_grad():
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, use_cache=False)
        answer = labels[0, 1:] != -100
        found.append((output.loss.item(), output.logits[0, :-1].argmax(dim=-1)[answer].tolist()))
    return found


def ours(model, batch, monkeypatch, *, logits_at_a_time=2**27, read_at_a_time=None, class_ids=()):
    from tunebook.hooks import forward
    from tunebook.hooks.forward import takes_position_ids

    monkeypatch.setattr(forward, "LOGITS_AT_A_TIME", logits_at_a_time)
    inputs = dict(batch.inputs)
    if not takes_position_ids(model):
        inputs.pop("position_ids")
    return forward.forward(
        model,
        batch._replace(inputs=inputs),
        keep_answers_only=True,
        read_at_a_time=read_at_a_time,
        class_ids=class_ids,
    )


def counted(model):
    """How often the model's head and its decoder's first layer ran, as a list that fills."""
    from tunebook.hooks.forward import decoder_of, innermost

    calls = {"head": 0, "decoder": 0}

    def count(name):
        return lambda *_: calls.update({name: calls[name] + 1})

    innermost(model).get_output_embeddings().register_forward_hook(count("head"))
    layer = next(m for n, m in decoder_of(model).named_modules() if n.endswith("layers.0"))
    layer.register_forward_hook(count("decoder"))
    return calls


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_answer_in_pieces_gives_the_stock_loss(models, batch, monkeypatch, name):
    model = models(name)
    expected = stock(model, batch)
    calls = counted(model)
    whole = ours(model, batch, monkeypatch, class_ids=[[30], [31, 32]])
    assert calls == {"head": 1, "decoder": 1}
    # Ten positions of three rows at a time.
    vocabulary = model.config.get_text_config().vocab_size
    pieces = ours(model, batch, monkeypatch, logits_at_a_time=30 * vocabulary, class_ids=[[30], [31, 32]])
    assert calls["decoder"] == 2
    assert calls["head"] >= 1 + 5
    for row, (loss, argmax) in enumerate(expected):
        for found in (whole[row], pieces[row]):
            assert found.nll / found.tokens == pytest.approx(loss, abs=2e-5)
            assert found.argmax_ids == argmax[-ANSWERS[row] :]
        assert pieces[row].nll == pytest.approx(whole[row].nll, abs=1e-6 * whole[row].tokens)
        assert pieces[row].hits == whole[row].hits
        assert pieces[row].class_logprobs == pytest.approx(whole[row].class_logprobs, abs=1e-5)
    assert "forward" not in type(model).__dict__ or model.base_model.forward.__name__ == "forward"


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["qwen3", "gemma2", "gemma3"])
def test_a_row_read_in_pieces_gives_the_stock_loss(models, batch, monkeypatch, name, kernel):
    model = models(name, attn_implementation=kernel)
    expected = stock(model, batch)
    calls = counted(model)
    found = ours(model, batch, monkeypatch, logits_at_a_time=30 * 600, read_at_a_time=17)
    width = batch.inputs["input_ids"].shape[1]
    assert calls["decoder"] == -(-width // 17)
    for row, (loss, argmax) in enumerate(expected):
        assert found[row].nll / found[row].tokens == pytest.approx(loss, abs=2e-5)
        assert found[row].argmax_ids == argmax[-ANSWERS[row] :]
    # Nothing is left in the decoder's place.
    assert stock(model, batch) == expected


def test_adapters_with_a_trained_head_autocast_and_wrappers_give_the_same(models, batch, monkeypatch):
    import accelerate
    import peft
    import torch

    torch.manual_seed(0)
    model = peft.get_peft_model(
        models("gemma2"),
        peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"]),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.eval()
    pieces = {"logits_at_a_time": 30 * 700, "read_at_a_time": 29}
    for row, (loss, _) in zip(ours(model, batch, monkeypatch, **pieces), stock(model, batch), strict=True):
        assert row.nll / row.tokens == pytest.approx(loss, abs=2e-5)
    plain = ours(model, batch, monkeypatch)[0].nll

    # What a Trainer does under `bf16: true`: autocast, and outputs turned to fp32.
    prepared = accelerate.Accelerator(mixed_precision="bf16", cpu=True).prepare_model(
        model, evaluation_mode=True
    )
    whole = ours(prepared, batch, monkeypatch)
    assert whole[0].nll != plain  # which was fp32 throughout
    cut = ours(prepared, batch, monkeypatch, **pieces)
    for one, other in zip(whole, cut, strict=True):
        assert other.nll / other.tokens == pytest.approx(one.nll / one.tokens, abs=5e-3)
    head_alone = ours(prepared, batch, monkeypatch, logits_at_a_time=30 * 700)
    assert [row.nll for row in head_alone] == pytest.approx([row.nll for row in whole], rel=1e-6)

    class Wrapper(torch.nn.Module):  # as DDP and DeepSpeed's engine: the model is their `module`
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *args, **named):
            return self.module(*args, **named)

    wrapped = ours(Wrapper(model), batch, monkeypatch, **pieces)
    assert [row.nll for row in wrapped] == [row.nll for row in ours(model, batch, monkeypatch, **pieces)]


def test_ddp_gives_the_same(models, batch, monkeypatch, tmp_path):
    import torch

    model = models("qwen3")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ddp", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        pieces = {"logits_at_a_time": 30 * 600, "read_at_a_time": 29}
        assert ours(wrapped, batch, monkeypatch, **pieces) == ours(model, batch, monkeypatch, **pieces)
    finally:
        torch.distributed.destroy_process_group()


def test_a_rank_with_fewer_pieces_makes_as_many_passes_as_the_others(models, batch, monkeypatch):
    from tunebook.hooks import forward

    model = models("qwen3")
    calls = counted(model)
    monkeypatch.setattr(forward, "LOGITS_AT_A_TIME", 90 * 600)
    alone = forward.forward(model, batch, keep_answers_only=True)
    own, calls["head"] = calls["head"], 0
    in_step = forward.forward(model, batch, keep_answers_only=True, agree=lambda number: number + 3)
    assert calls["head"] == own + 3
    assert in_step == alone


@pytest.fixture
def trainer(models, tmp_path):
    """A trainer's part that generation touches: a real model, a real tokenizer."""
    import transformers

    def build(name="qwen3", **options):
        model = models(name, **options)
        args = transformers.TrainingArguments(
            tmp_path, per_device_eval_batch_size=3, report_to="none", use_cpu=True, disable_tqdm=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(model.config._name_or_path)
        return transformers.Trainer(model=model, args=args, processing_class=tokenizer)

    return build


def generated(trainer, rows, *, new_tokens=6, batches=None, limits=None):
    """Ids by row of `generate_batches`, and the batches handed over."""
    from tunebook.hooks.decoding import Detokenizer
    from tunebook.hooks.generation import generate_batches
    from tunebook.hooks.memory import Limits
    from tunebook.hooks.preparation import EvaluationSet, Prepared
    from tunebook.hooks.rows import read_rows

    detokenizer = Detokenizer(trainer.processing_class, frozenset({1}))

    class Columns(list):
        def __getitem__(self, place):
            if isinstance(place, slice):
                part = list(self)[place]
                return {name: [row[name] for row in part] for name in ("input_ids", "labels")}
            return super().__getitem__(place)

    dataset = Columns(rows)
    read = read_rows(
        dataset,
        name="rows",
        stop_ids=detokenizer.stop_ids,
        length_limit=10**6,
        prompt_loss_key="train_on_prompt",
    )
    prepared = Prepared(
        chosen=EvaluationSet(name="rows", metrics=()),
        dataset=dataset,
        detokenizer=detokenizer,
        rows=read,
        references=["" for _ in rows],
        mode="generate",
        scored=list(range(len(rows))),
        class_ids=[],
        classes_of=None,
        max_new_tokens=new_tokens,
        notes=(),
    )
    handed = []
    batches = batches or [[0, 1, 2]]
    generate_batches(trainer, prepared, batches, handed.append, limits or Limits())
    return {one.row: one.ids for batch in handed for one in batch}, handed


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_prompts_read_in_pieces_are_answered_as_prompts_read_whole(trainer, rows, monkeypatch, name):
    from tunebook.hooks.forward import decoder_of
    from tunebook.memory import inference

    asked = trainer(name)
    whole, _ = generated(asked, rows)
    widths = []
    layer = next(m for n, m in decoder_of(asked.model).named_modules() if n.endswith("layers.0"))
    layer.register_forward_pre_hook(lambda _module, args: widths.append(args[0].shape[1]))
    monkeypatch.setattr(inference, "WHOLE_UP_TO", 64)
    monkeypatch.setattr(inference, "PIECE_TOKENS", 3 * 16)
    monkeypatch.setattr(inference, "SMALLEST_PIECE", 16)
    pieces, _ = generated(asked, rows)
    assert pieces == whole
    if name == "qwen3_5":  # linear attention would begin anew with each piece
        assert max(widths) > 16
    else:
        assert max(widths) == 16


def test_a_batch_that_runs_out_of_memory_is_run_in_halves_and_said(trainer, rows, monkeypatch, capsys):
    import torch

    asked = trainer()
    whole, _ = generated(asked, rows)
    real = asked.model.generate

    def small(input_ids, **named):
        if len(input_ids) > 1:
            torch.empty(2**52, dtype=torch.uint8)  # the real allocator's own error
        return real(input_ids, **named)

    monkeypatch.setattr(asked.model, "generate", small)
    halved, handed = generated(asked, rows)
    assert halved == whole
    assert [[one.row for one in batch] for batch in handed] == [[0, 1, 2]]
    assert capsys.readouterr().out.count("out of memory in a batch of") == 2


def test_one_row_that_runs_out_of_memory_is_an_error_and_no_result(trainer, rows, monkeypatch):
    import torch

    from tunebook.errors import TunebookError

    asked = trainer()
    monkeypatch.setattr(asked.model, "generate", lambda **_: torch.empty(2**52, dtype=torch.uint8))
    with pytest.raises(TunebookError, match="out of memory in a batch of 1 x"):
        generated(asked, rows, batches=[[2]])


def test_another_error_in_a_batch_is_not_taken_for_a_lack_of_memory(trainer, rows, monkeypatch):
    asked = trainer()

    def fail(**_):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(asked.model, "generate", fail)
    with pytest.raises(RuntimeError, match="size mismatch"):
        generated(asked, rows)


def test_what_does_not_fit_is_said_before_it_starts_with_what_would(trainer, rows, monkeypatch, capsys):
    from tunebook.errors import TunebookError
    from tunebook.hooks import memory

    asked = trainer()
    monkeypatch.setattr(asked.model, "generate", lambda **_: pytest.fail("it was started"))
    # Two layers with two heads of 16 in fp32 are 512 bytes a token.
    sizes = memory.sizes_of(asked.model)
    alone = memory.need(sizes, [56], 6, memory.Limits()).total
    monkeypatch.setattr(memory, "free_bytes", lambda _model: 1.5 * alone)
    with pytest.raises(TunebookError, match=r"3 of 3 rows will not fit: a batch of 3 x 63 tokens") as caught:
        generated(asked, rows, limits=memory.Limits(strict=True))
    assert "--batch-tokens" in caught.value.fix
    assert "generation: at most 3 x 63 tokens, keys and values 94.5 KiB" in capsys.readouterr().out
    monkeypatch.setattr(memory, "free_bytes", lambda _model: 0.5 * alone)
    with pytest.raises(TunebookError) as caught:
        generated(asked, rows, batches=[[0]], limits=memory.Limits(strict=True))
    assert "limit the length to " in caught.value.fix
    assert "--device-map auto" in caught.value.fix


def test_the_benchmark_shows_where_all_logits_no_longer_fit():
    script = ROOT / "benchmarks" / "long_eval.py"
    # 900 x 151,936 logits in fp32 are 0.5 GiB, and the loss needs as much again.
    sizes = ["--tokens", "64", "900", "--prompts", "64", "--answer-tokens", "16", "--budget", "0.75"]
    done = subprocess.run(
        [sys.executable, script, *sizes, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads(done.stdout.splitlines()[-1])
    found = {(one["case"], one["tokens"]): one["measured"] for one in cases}
    assert found["stock", 900] is None
    assert found["ours", 900] is not None
    assert found["ours", 64]["value"] == pytest.approx(found["stock", 64]["value"], abs=1e-5)
    assert found["generate", 64]["value"] == found["generate in pieces", 64]["value"]
    assert "does not fit" in done.stdout
