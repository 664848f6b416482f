"""What strangers' runs left, in small: of each, one line says headline, logged steps, best step and findings.

Every case is a folder as some program leaves it. A text in `says` must stand in the headline, one after `!`
must not. `steps` are those of the training loss; `best` is figure and step; `finds` are beginnings of all titles.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from tunebook.errors import TunebookError
from tunebook.report.data import gather
from tunebook.report.objective import objective_of
from tunebook.runlog import read_run

Files = dict[str, str | bytes]


class Case(NamedTuple):
    files: Files
    says: tuple[str, ...] = ()
    steps: list[int] | None = None
    best: tuple[str, int] | None = None
    finds: tuple[str, ...] = ()


def state(
    losses=(2.0, 1.5, 1.2), every=10, evals=None, *, extra=(), at="", **facts: Any
) -> Files:  # fmt: skip
    """A `trainer_state.json`: losses every so many steps, and evaluations by step."""
    steps = [every * place for place in range(1, len(losses) + 1)]
    history = [
        {"epoch": step / 100, "step": step, "loss": loss, "grad_norm": 1.0, "learning_rate": 1e-4}
        for step, loss in zip(steps, losses, strict=True)
    ]
    history += [
        {"epoch": step / 100, "step": step, **{f"eval_{name}": value for name, value in one.items()}}
        for step, one in (evals or {}).items()
    ]
    last = max([*steps, *(evals or {0: 0})])
    whole = {"global_step": last, "max_steps": last, "num_train_epochs": 1, "epoch": last / 100} | facts
    whole["log_history"] = [
        entry | dict(extra.get(entry["step"], {}) if isinstance(extra, dict) else extra) for entry in history
    ]
    return {f"{at}trainer_state.json": json.dumps(whole)}


def js(**values: Any) -> str:
    return json.dumps(values)


def printed(*entries: dict[str, Any]) -> str:
    return "".join(f"{entry}\n" for entry in entries)


def losses(first: float, count: int, *, step: float = 0.1, epoch: float = 0.0, fall: float = 0.1) -> str:
    return printed(
        *(
            {
                "loss": round(first - fall * place, 4),
                "learning_rate": 1e-4,
                "epoch": round(epoch + step * (place + 1), 2),
            }
            for place in range(count)
        )
    )


def closing(epoch: float = 1.0, **more: Any) -> str:
    return printed({"train_runtime": 20.0, "train_loss": 1.0, "epoch": epoch} | more)


def bar(done: int, total: int, label: str = "") -> str:
    return f"\r{label}{100 * done // total:3d}%|###   | {done}/{total} [00:01<00:09,  2.00it/s]"


def trainer_log(steps, total: int | None = None, **more: Any) -> Files:
    lines = [
        js(current_steps=step, total_steps=total or max(steps), loss=2 - step / 1000, lr=1e-4, epoch=step / 100,
           elapsed_time=f"0:00:{step % 60:02d}", **more)
        for step in steps
    ]  # fmt: skip
    return {"trainer_log.jsonl": "".join(f"{line}\n" for line in lines)}


BANNER = (
    "***** Running training *****\n  Num examples = 300\n  Num Epochs = 1\n"
    "  Total train batch size (w. parallel, distributed & accumulation) = 1\n  Total optimization steps = 300\n"
)
TWENTY = printed({"loss": 2.0, "epoch": 0.03333}, {"loss": 1.9, "epoch": 0.06667})
TRACE = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    main()\n'
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9.28 GiB. GPU 0 has a total capacity of 23.69 GiB "
    "of which 1.20 GiB is free. Including non-PyTorch memory, this process has 22.4 GiB memory in use.\n"
)
OLD_OOM = (
    "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.90 GiB total capacity; 14.75 GiB already "
    "allocated; 11.81 MiB free; 14.90 GiB reserved in total by PyTorch)\n"
)
NCCL = (
    "[rank1]:[E1218 20:27:21.4 ProcessGroupNCCL.cpp:629] [Rank 1] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=1, OpType=BROADCAST, Timeout(ms)=600000) ran for 600088 milliseconds before timing out.\n"
)
CHILD = TRACE + "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\ntrain.py FAILED\n"
SLURM = "slurmstepd: error: *** JOB 42 ON node7 CANCELLED AT 2026-04-14T16:17:16{} ***\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 999\n"
WER = {10: {"loss": 0.5, "wer": 0.6}, 20: {"loss": 0.6, "wer": 0.4}, 30: {"loss": 0.7, "wer": 0.45}}
NAMED = {"README.md": "### Training hyperparameters\n- learning_rate: 0.0001\n"}
GRPO = {"reward": 0.5, "reward_std": 0.2, "kl": 0.01}
GRPO_LOG = [
    {
        "loss": 0.0,
        "reward": 0.1 * place,
        "reward_std": 0.2,
        "kl": 0.001 * place,
        "epoch": 0.1 * place,
        "step": place,
    }
    for place in range(1, 11)
]
DIED = "broken off"
EARLY = "the run ended early"
CPU_LOG = "timestamp, index, memory.used [MiB], utilization.gpu [%]\n" + "".join(
    f"2026/11/20 23:06:{second:02d}.000, 0, {1000 + second} MiB, 90 %\n" for second in range(5)
)

CASES: dict[str, Case] = {
    # Results files are evaluations.
    "eval_results": Case(state() | {"eval_results.json": js(epoch=1.0, eval_loss=1.21, eval_rouge1=41.6)}, ("1.210", "41.6", "!never"), [10, 20, 30], ("loss", 30)),
    "all_results": Case(state() | {"all_results.json": js(eval_accuracy=0.5, eval_loss=1.0, train_runtime=5.0)}, ("accuracy 0.500",), [10, 20, 30], ("loss", 30)),
    "predict only": Case({"predict_results.json": js(**{"predict_rouge-1": 41.0, "predict_bleu-4": 12.0}), "generated_predictions.jsonl": "{}\n"}, ("evaluated on predict", "rouge-1 41", "No training", "!trained ("), None, ("bleu-4", 0)),
    "LF DPO results": Case(state() | {"eval_results.json": js(**{"eval_loss": 0.65, "eval_rewards/accuracies": 0.538, "eval_rewards/chosen": 1.0})}, ("DPO evaluation loss 0.650", "!never"), [10, 20, 30], ("loss", 30)),
    "eval only": Case({"eval_results.json": js(eval_loss=1.5, perplexity=4.5)}, ("No training",), None, ("loss", 0)),
    "two sets in results": Case(state() | {"eval_results.json": js(eval_a_loss=1.5, eval_b_loss=1.6)}, ("1.500 on a",), [10, 20, 30], ("loss", 30)),
    "UTF-8 with a mark": Case(state() | {"eval_results.json": b"\xef\xbb\xbf" + js(eval_loss=1.1).encode()}, ("1.100",), [10, 20, 30], ("loss", 30)),
    # The Trainer's own choice.
    "chosen by wer": Case(state(evals=WER, best_metric=0.4, best_model_checkpoint="out/checkpoint-20"), ("wer 0.400 at step 20",), [10, 20, 30], ("wer", 20), ("the evaluation loss rises",)),
    "Windows path": Case(state(evals=WER, best_metric=0.4, best_model_checkpoint="C:\\out\\checkpoint-20"), ("wer 0.400 at step 20",), [10, 20, 30], ("wer", 20), ("the evaluation loss rises",)),
    "nobody chose": Case(state(evals=WER), ("wer 0.600 there", "which way wer", "!no task metric"), [10, 20, 30], ("loss", 10), ("the evaluation loss rises",)),
    "loss alone": Case(state(evals={10: {"loss": 0.5}, 30: {"loss": 0.4}}), ("no task metric",), [10, 20, 30], ("loss", 30)),
    "accuracy is known": Case(state(evals={30: {"loss": 0.5, "accuracy": 0.8}}), ("accuracy 0.800 there", "!which way"), [10, 20, 30], ("loss", 30)),
    "nested figures": Case(state(evals={30: {"loss": 0.5, "LOC": {"f1": 0.7}}}), ("0.500",), [10, 20, 30], ("loss", 30)),
    # Steps of console logs.
    "bar of an evaluation": Case({"nohup.out": losses(2, 6, step=0.05) + bar(0, 100) + printed({"eval_loss": 0.5, "eval_runtime": 4.0, "epoch": 0.3})}, ("at log entry 6", "!step 0"), [1, 2, 3, 4, 5, 6], ("loss", 6)),
    "bar 4 of 100": Case({"nohup.out": losses(2, 6, step=0.05) + bar(4, 100) + printed({"eval_loss": 0.5, "eval_runtime": 4.0, "epoch": 0.3})}, (), [1, 2, 3, 4, 5, 6], ("loss", 6)),
    "bars written first": Case({"nohup.out": "".join(bar(step, 60) for step in range(61)) + bar(9, 9) + "\n" + losses(2, 6, step=0.5) + closing(3.0, train_steps_per_second=3.0)}, (), [10, 20, 30, 40, 50, 60]),
    "evaluation longer than training": Case({"nohup.out": "".join(bar(step, 20) + bar(0, 500) + bar(500, 500) for step in (10, 20)) + "\n" + losses(2, 2, step=0.5) + closing(1.0, train_steps_per_second=1.0)}, (), [10, 20]),
    "labelled bars": Case({"train.log": bar(300, 300, "Map: ") + bar(10, 20) + "\n" + losses(2, 2, step=0.5) + bar(20, 20) + closing(1.0, train_steps_per_second=1.0)}, (), [10, 20]),
    "evaluations without bars": Case({"log.txt": losses(2, 2) + printed({"eval_loss": 1.0, "epoch": 0.2}) + losses(1.8, 2, epoch=0.2) + printed({"eval_loss": 0.9, "epoch": 0.4})}, ("at log entry 4",), [1, 2, 3, 4], ("loss", 4)),
    "evaluated before training": Case({"log.txt": printed({"eval_loss": 3.0, "epoch": 0}) + losses(2, 3) + printed({"eval_loss": 0.9, "epoch": 0.3})}, (), [1, 2, 3], ("loss", 3)),
    "never above the total": Case({"log.txt": "  Num examples = 2381\n  Num Epochs = 5\n  Total train batch size (w. parallel) = 1\n  Total optimization steps = 11,900\n" + losses(2, 5, step=1.0)}, (), [2380, 4760, 7140, 9520, 11900]),
    "unsloth's banner": Case({"log.txt": "Num examples = 80 | Num Epochs = 2 | Total steps = 20\nTotal batch size (2 x 4 x 1) = 8\n" + losses(2, 4, step=0.5) + closing(2.0)}, (), [5, 10, 15, 20]),
    "ended early by the log": Case({"log.txt": BANNER + TWENTY}, (), [10, 20], None, (EARLY,)),
    "three seeds": Case({"log.txt": losses(1.99, 6) + closing(0.6) + losses(0.99, 4) + closing(0.4)}, (), [1, 2, 3, 4], None, ("files of another run",)),
    "two seeds in two files": Case({"a.log": losses(1.99, 6) + closing(0.6), "b.log": losses(0.99, 4) + closing(0.4)}, (), [1, 2, 3, 4], None, ("files of another run",)),
    "resumed in one log": Case({"log.txt": "Num update steps per epoch = 100\n" + losses(2, 4) + "Continuing training from global step 20\n" + losses(1.7, 3, epoch=0.2) + closing(0.5)}, (), [10, 20, 30, 40, 50], None, ("the run was started again",)),
    "UTF-16 log": Case({"log.txt": (BANNER + TWENTY + closing(1.0)).encode("utf-16")}, (), [10, 20], None, (EARLY,)),
    "quoted numbers": Case({"log.txt": "{'loss': '1.5', 'epoch': '0.5'}\n{'loss': '1.4', 'epoch': '1'}\n" + closing()}, (), [1, 2]),
    # Other runs' files.
    "stale checkpoint": Case(state((2, 1.9), 10) | state((3, 2.9, 2.8), 10, at="checkpoint-30/"), (), [10, 20], None, ("files of another run",)),
    "stale checkpoint, same plan": Case(state((2, 1.9), 10, max_steps=25) | state((3, 2.9, 2.8), 10, at="checkpoint-30/", max_steps=25), (), [10, 20], None, (EARLY, "files of another run")),
    "own checkpoints": Case(state((2, 1.9, 1.8), 10) | state((2, 1.9), 10, at="checkpoint-20/", max_steps=30), (), [10, 20, 30]),
    "two writers": Case(trainer_log([step for step in range(5, 205, 5) for _ in (0, 1)]), (), list(range(5, 205, 5)), None, ("two processes",)),
    "two writers out of step": Case(trainer_log([step for at in range(5, 205, 5) for step in ((at, at) if at < 100 else (at, max(5, at - 5)))], 200), (), list(range(5, 205, 5)), None, ("two processes",)),
    "trainer_log resumed": Case(trainer_log([5, 10, 15, 20, 15, 20, 25, 30]), (), [5, 10, 15, 20, 25, 30], None, ("the run was started again",)),
    "trainer_log's total": Case(trainer_log([5, 10, 15, 20], 5100), (), [5, 10, 15, 20], None, (EARLY,)),
    "resumed beyond the end": Case(state((2, 1.9), 405, max_steps=30, evals={540: {"loss": 0.06}}), ("was not trained", "!0.06"), [405, 810], ("loss", 540), ("nothing was trained",)),
    "nothing left to train": Case(state() | {"train_results.json": js(train_loss=0.0, train_runtime=0.1)}, ("was not trained",), [10, 20, 30], None, ("nothing was trained",)),
    "another run's best": Case(state(evals={30: {"loss": 1.0}}, best_metric=1.0, best_model_checkpoint="old/checkpoint-30") | {"training_args.yaml": "output_dir: saves/new\nmodel_name_or_path: m\n"}, (), [10, 20, 30], ("loss", 30), ("the best checkpoint is of another run",)),
    "trained on its test": Case(state(evals={30: {"loss": 1.0}}) | {"training_args.yaml": "dataset: a,b\neval_dataset: b\n"}, ("trained on a, b",), [10, 20, 30], ("loss", 30), ("b was trained on too",)),
    # Streams and damage.
    "a stream": Case(state([2 - 0.01 * place for place in range(100)], 1, num_train_epochs=9223372036854775807, extra={100: {"epoch": 4.01}}), (), list(range(1, 101))),
    "LFS pointers": Case(state() | {f"runs/events.out.tfevents.{place}": LFS for place in range(9)}, (), [10, 20, 30], None, ("files are missing",)),
    "cut state": Case({"trainer_state.json": next(iter(state().values()))[:-150]}, (), [10], None, ("trainer_state.json is damaged",)),
    "a checkpoint's folder": Case(state(max_steps=2808) | {"optimizer.pt": b"x"}, (), [10, 20, 30], None, ("this folder is a checkpoint",)),
    "ended early for good": Case(state(max_steps=900) | {"train_results.json": js(train_loss=1.0, train_runtime=5.0)}, (), [10, 20, 30], None, (EARLY,)),
    # Objectives.
    "GRPO": Case({"trainer_state.json": js(global_step=10, max_steps=10, log_history=GRPO_LOG)}, ("reward in training rose from 0.100 to 1.000",), list(range(1, 11))),
    "GRPO, evaluated": Case({"trainer_state.json": js(global_step=10, max_steps=10, log_history=[*GRPO_LOG, {"eval_loss": 0.0, "eval_reward": 0.7, "step": 10}])}, ("reward 0.700",), list(range(1, 11)), ("reward", 10)),
    "GRPO in a console log": Case({"log.txt": printed(*({**GRPO, "loss": 0.0, "epoch": 0.1 * place} for place in range(1, 5)))}, ("reward in training stayed",), [1, 2, 3, 4]),
    "KTO": Case(state(extra={"rewards/chosen": 1.0, "rewards/rejected": 0.5, "kl": 0.1}.items(), evals={30: {"loss": 0.4}}), ("KTO evaluation loss 0.400",), [10, 20, 30], ("loss", 30)),
    "reward model": Case(state(evals={30: {"loss": 0.4, "accuracy": 0.9}}) | {"training_args.yaml": "stage: rm\nmodel_name_or_path: org/m\n"}, ("org/m", "reward model evaluation loss 0.400"), [10, 20, 30], ("loss", 30)),
    "classifier": Case(state(evals={30: {"loss": 0.4}}) | {"config.json": js(architectures=["BertForSequenceClassification"], _name_or_path="bert-base")}, ("bert-base", "classification evaluation loss"), [10, 20, 30], ("loss", 30)),
    "speech": Case(state(evals=WER, best_metric=0.4, best_model_checkpoint="o/checkpoint-20") | {"config.json": js(architectures=["WhisperForConditionalGeneration"], _name_or_path="openai/whisper-small")}, ("openai/whisper-small", "wer 0.400"), [10, 20, 30], ("wer", 20), ("the evaluation loss rises",)),
    "TRL card": Case(state() | {"README.md": "This model is a fine-tuned version of [Qwen/Q](https://hf.co/Qwen/Q).\nThis model was trained with DPO, a method\n"}, ("Qwen/Q", "never evaluated"), [10, 20, 30]),
    "LLaMA Board": Case(state() | {"llamaboard_config.yaml": "top.model_path: org/Q-7B\ntop.finetuning_type: lora\ntrain.dataset: [d]\ntrain.training_stage: Supervised Fine-Tuning\n"}, ("org/Q-7B, LoRA SFT, trained on d",), [10, 20, 30]),
    # Findings.
    "zero gradient": Case(state(extra={"grad_norm": 0.0}.items()), (), [10, 20, 30], None, ("the gradient is zero",)),
    "zero rate": Case(state(extra={"learning_rate": 0.0}.items()), (), [10, 20, 30], None, ("the learning rate is zero",)),
    "zero loss": Case(state((2.0, 0.0, 0.0)), (), [10, 20, 30], None, ("the training loss is exactly zero",)),
    "rounded to zero": Case(state((2.0, 0.1, 0.0003, 0.0002, 0.0, 0.0)), (), [10, 20, 30, 40, 50, 60]),
    "rounding is no jump": Case(state([0.0001] * 60 + [0.0002] * 10, 1), (), list(range(1, 71))),
    "batch of one is no jump": Case(state([1.0 + 0.9 * (place % 2) * (1 if place % 7 else 1.1) - 0.7 * (place % 3 == 0) for place in range(100)], 1), (), list(range(1, 101))),
    "a jump": Case(state([0.6 + 0.01 * (place % 5) for place in range(80)] + [1.9, 0.62], 1), (), list(range(1, 83)), None, ("the training loss jumps up 1 time",)),
    # What broke a run off.
    "OOM": Case({"train.log": BANNER + bar(20, 300) + TWENTY + TRACE + OOM}, ("broke off at step 20 of 300", "9.28 GiB asked for, 1.20 GiB free of 23.69 GiB"), [10, 20], None, (DIED,)),
    "old OOM": Case({"train.log": BANNER + TWENTY + TRACE + OLD_OOM}, ("CUDA out of memory: 20.00 MiB asked for, 11.81 MiB free of 15.90 GiB",), [10, 20], None, (DIED,)),
    "OOM before the first step": Case({"train.log": BANNER + "  transformers\n" + TRACE + OOM}, ("broke off before its first logged step: CUDA out of memory",), None, None, (DIED,)),
    "entries written late": Case({"nohup.out": BANNER + bar(20, 300) + TRACE + OOM + TWENTY}, ("broke off at step 20 of 300",), [10, 20], None, (DIED,)),
    "ValueError among ranks": Case({"train.log": BANNER + TWENTY + "[rank0]: " + TRACE.replace("\n", "\n[rank0]: ") + "ValueError: no tokens are left\n" + CHILD}, ("broke off at step 20 of 300: ValueError",), [10, 20], None, (DIED,)),
    "NCCL": Case({"train.log": BANNER + TWENTY + NCCL + CHILD}, ("NCCL time-out", "!ChildFailed"), [10, 20], None, (DIED,)),
    "SLURM time": Case({"slurm-1.out": BANNER + TWENTY + bar(25, 300) + SLURM.format(" DUE TO TIME LIMIT")}, ("broke off at step 25 of 300: the job's time limit",), [10, 20], None, (DIED,)),
    "SLURM preempted": Case({"slurm-1.out": BANNER + TWENTY + SLURM.format(" DUE TO PREEMPTION")}, ("preempted",), [10, 20], None, (DIED,)),
    "SLURM cancelled": Case({"slurm-1.out": BANNER + TWENTY + SLURM.format("")}, ("the job was cancelled",), [10, 20], None, (DIED,)),
    "SLURM memory": Case({"slurm-1.out": BANNER + TWENTY + "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch.\n"}, ("out of host memory",), [10, 20], None, (DIED,)),
    "killed": Case({"run.log": BANNER + TWENTY + "/x/run.sh: line 3: 4711 Killed                  python train.py\n"}, ("killed (SIGKILL)",), [10, 20], None, (DIED,)),
    "torchrun's SIGKILL": Case({"run.log": BANNER + TWENTY + "  exitcode  : -9 (pid: 4711)\n"}, ("killed (SIGKILL)",), [10, 20], None, (DIED,)),
    "stopped by hand": Case({"run.log": BANNER + TWENTY + TRACE + "KeyboardInterrupt\n"}, ("stopped by hand",), [10, 20], None, (DIED,)),
    "caught, and went on": Case({"run.log": BANNER + bar(10, 300) + TRACE + "OSError: hub\n" + TWENTY + bar(300, 300)}, ("!broke off",), [10, 20]),
    "error after training": Case({"run.log": BANNER + TWENTY + closing(1.0) + TRACE + "OSError: no token\n"}, ("!broke off",), [10, 20], None, ("after training: OSError", EARLY)),
    "requeued and finished": Case({"slurm-1.out": BANNER + TWENTY + SLURM.format(" DUE TO TIME LIMIT"), "slurm-2.out": BANNER + "Continuing training from global step 20\n" + losses(1.5, 9, epoch=0.1) + closing(1.0)}, ("!broke off",), None, None, ("the run was started again",)),
    "nothing logged": Case({"trainer_state.json": js(global_step=6, max_steps=6, log_history=[])}, ("logged no step",)),
    # No training at all.
    "GPUs alone": Case({"gpu.csv": CPU_LOG}, ("1 GPU was watched", "!A model")),
    "GPUs in UTF-16": Case({"gpu.csv": CPU_LOG.encode("utf-16")}, ("1 GPU was watched",)),
}  # fmt: skip


def write(folder, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("name", CASES)
def test_what_a_run_left_is_read_truly(tmp_path, name):
    case = CASES[name]
    write(tmp_path, case.files)
    run = gather([tmp_path]).runs[0]
    for text in case.says:
        assert (text.removeprefix("!") in run.headline) != text.startswith("!"), run.headline
    if case.steps is not None:
        assert read_run(tmp_path).series["loss"].steps.tolist() == case.steps
    chosen = [(best.figure.name, best.figure.step) for best in run.best]
    assert chosen[:1] == ([case.best] if case.best else [])
    titles = sorted(finding.title for finding in run.findings)
    assert len(titles) == len(case.finds), titles
    for begins in case.finds:
        assert any(title.startswith(begins) for title in titles), titles


def test_there_are_enough_of_them():
    assert len(CASES) >= 60


def test_pointers_alone_are_named_for_what_they_are(tmp_path):
    write(tmp_path, {"trainer_state.json": LFS})
    for place in (tmp_path, tmp_path / "trainer_state.json"):
        with pytest.raises(TunebookError) as error:
            read_run(place)
        assert "Git LFS" in error.value.problem
        assert "git lfs pull" in error.value.fix


def test_a_policys_reward_is_drawn_first_and_its_loss_is_called_what_it_is(tmp_path):
    write(tmp_path, CASES["GRPO"].files)
    charts = {chart.id: chart for chart in gather([tmp_path]).charts}
    assert next(iter(charts)) == "metric_reward"
    assert charts["loss"].y_label == "GRPO loss"
    assert {"metric_kl", "metric_reward"} <= charts.keys()
    assert objective_of(read_run(tmp_path)).by_reward


def pair(tmp_path, first: Files, second: Files):
    for name, files in (("a", first), ("b", second)):
        write(tmp_path / name, files)
    return gather([tmp_path / "a", tmp_path / "b"])


ONE = state(evals={30: {"loss": 1.0}})
TWO = state(evals={30: {"loss": 0.5}})
SET = {"training_args.yaml": "model_name_or_path: Q\nstage: sft\neval_dataset: t\n"}


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (ONE, TWO, "not ranked: no file names the set"),
        (ONE | SET, TWO | SET, "b is best by evaluation loss 0.500"),
        (ONE | SET, TWO | {"training_args.yaml": SET["training_args.yaml"].replace(": Q", ": W")}, "losses of different base models"),
        (ONE | SET, TWO | {"training_args.yaml": SET["training_args.yaml"].replace("sft", "dpo")}, "their objectives differ (language modelling and DPO)"),
        (ONE | SET, TWO | {"training_args.yaml": SET["training_args.yaml"].replace(": t", ": u")}, "on different sets"),
    ],
)  # fmt: skip
def test_only_the_same_figure_of_the_same_set_under_the_same_objective_is_ranked(
    tmp_path, first, second, says
):
    report = pair(tmp_path, first, second)
    assert says in report.headline
    assert ("is best" in report.headline) == (not report.comparison.not_ranked)
