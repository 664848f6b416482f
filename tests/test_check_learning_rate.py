"""The previewed learning rate: the schedulers' own values at every step, warmup counted as the engine counts it."""

import pytest

from tunebook.checks.learning_rate import axolotl_schedule, axolotl_warmup, schedule

STEPS, PEAK = 57, 3e-4


def rates(scheduler, optimizer):
    """The rate before each step and after the last one."""
    found = [scheduler.get_last_lr()[0]]
    for _ in range(STEPS):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return found


def optimizer_of(torch):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)


@pytest.mark.parametrize(
    ("values", "warmup"),
    [
        ({}, 3), ({"warmup_steps": 7}, 7), ({"warmup_ratio": 0.1}, 10), ({"warmup_ratio": 0.0}, 0),
        ({"warmup_steps": 1}, 2), ({"warmup_steps": 0, "warmup_ratio": 0.5}, 0),
    ],
)  # fmt: skip
def test_axolotl_warms_up_by_its_own_rule(values, warmup):
    assert axolotl_warmup(values, 100) == warmup


def test_axolotls_default_warmup_is_three_hundredths_and_at_most_a_hundred_steps():
    assert [axolotl_warmup({}, steps) for steps in (10, 40, 1_000, 100_000)] == [0, 2, 30, 100]


def test_a_rate_without_a_formula_is_refused():
    for values in ({"lr_scheduler": "one_cycle"}, {"jagged_restart_steps": 5}):
        with pytest.raises(ValueError, match="no formula"):
            axolotl_schedule(values, peak=PEAK, steps=STEPS)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("warmup", "options"),
    [
        (7, {"min_lr": 1e-5}), (0, {"min_lr_rate": 0.1}), (7, {"min_lr_rate": 0.1, "warmup_lr_rate": 0.05}),
        (7, {"min_lr": 1e-5, "num_cycles": 1.5}),
    ],
)  # fmt: skip
def test_the_cosine_that_warms_up_to_a_floor_is_transformers_own(warmup, options):
    torch = pytest.importorskip("torch")
    from transformers import get_scheduler

    optimizer = optimizer_of(torch)
    name = "cosine_warmup_with_min_lr"
    real = get_scheduler(name, optimizer, warmup, STEPS, scheduler_specific_kwargs=dict(options))
    ours = schedule(name, peak=PEAK, steps=STEPS, warmup=warmup, options=options)
    assert [ours(step) for step in range(STEPS + 1)] == pytest.approx(
        rates(real, optimizer), rel=1e-9, abs=1e-15
    )


@pytest.mark.engine
@pytest.mark.parametrize(
    "values",
    [{"warmup_ratio": 0.03}, {"warmup_ratio": 0.1}, {"warmup_steps": 7}, {"warmup_steps": 0.25}, {}],
)
def test_llamafactorys_warmup_is_the_trainers(values, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from transformers import TrainingArguments

    from tunebook import paths
    from tunebook.checks.arithmetic import arithmetic
    from tunebook.checks.run import check_recipe

    monkeypatch.chdir(tmp_path)
    lines = [f"{key}: {value}" for key, value in values.items()]
    (tmp_path / "r.yaml").write_text("\n".join(["model_name_or_path: a/b", "do_train: true", *lines]))
    recipe = check_recipe("r.yaml", paths.home()).checked_recipe
    real = TrainingArguments(str(tmp_path / "out"), use_cpu=True, **values).get_warmup_steps(STEPS)
    assert arithmetic(recipe, STEPS).warmup == real


@pytest.mark.axolotl
@pytest.mark.parametrize("warmup", [0, 7])
def test_axolotls_own_schedulers_have_these_values(warmup):
    torch = pytest.importorskip("torch")
    from axolotl.utils import schedulers

    def compare(values, make):
        optimizer = optimizer_of(torch)
        ours = axolotl_schedule(values, peak=PEAK, steps=STEPS, warmup=warmup)
        wanted = rates(make(optimizer), optimizer)
        assert [ours(step) for step in range(STEPS + 1)] == pytest.approx(wanted, rel=1e-9, abs=1e-15), values

    common = {"num_warmup_steps": warmup, "num_training_steps": STEPS}
    compare(
        {"cosine_min_lr_ratio": 0.1},
        lambda o: schedulers.get_cosine_schedule_with_min_lr(o, min_lr_ratio=0.1, **common),
    )
    compare(
        {"cosine_min_lr_ratio": 0.1, "cosine_constant_lr_ratio": 0.8},
        lambda o: schedulers.get_cosine_schedule_with_warmup_decay_constant(
            o, min_lr_ratio=0.1, constant_lr_ratio=0.8, **common
        ),
    )
    compare(
        {"lr_quadratic_warmup": True},
        lambda o: schedulers.get_cosine_schedule_with_quadratic_warmup(o, **common),
    )
    for floor in (None, 0.2):
        compare(
            {"lr_scheduler": "rex", "cosine_min_lr_ratio": floor},
            lambda o, floor=floor: schedulers.RexLR(
                optimizer=o,
                max_lr=PEAK,
                min_lr=PEAK * (floor or 0),
                total_steps=STEPS,
                num_warmup_steps=warmup,
            ),
        )
