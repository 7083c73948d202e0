"""The callback and the mixin in transformers' own Trainer."""

import math

import pytest

torch = pytest.importorskip("torch", reason="NOT TESTED: training needs torch")
transformers = pytest.importorskip("transformers", reason="NOT TESTED: the Trainer needs transformers")
pytest.importorskip("accelerate", reason="NOT TESTED: the Trainer needs accelerate")

from hf_models import save_bert  # noqa: E402

from bsexport.backslash import Constraint, Epsilon, Rate, Weight  # noqa: E402
from bsexport.backslash.trainer import BackSlashCallback, BackSlashMixin  # noqa: E402
from bsexport.errors import RecipeError  # noqa: E402


class BackSlashTrainer(BackSlashMixin, transformers.Trainer):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"), "text-classification", hidden_dropout_prob=0.0)


def load(folder):
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


def examples(count=48):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 17, (count, 10), generator=generator)
    return [{"input_ids": row, "attention_mask": torch.ones(10).long(), "labels": int(row[0]) % 3} for row in ids]


def arguments(out, **more):
    defaults = {"max_steps": 6, "per_device_train_batch_size": 8, "logging_steps": 2, "report_to": [], "use_cpu": True}
    defaults |= {"save_strategy": "no", "disable_tqdm": True, "learning_rate": 1e-3, "max_grad_norm": 0.0}
    return transformers.TrainingArguments(out, **defaults | more)


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def fit(folder, out, rate, *, trainer=BackSlashTrainer, **more):
    extra = {name: more.pop(name) for name in ("teacher", "distil", "temperature") if name in more}
    made = trainer(load(folder), arguments(out, **more), train_dataset=examples(), rate=rate, **extra)
    made.train(resume_from_checkpoint=more.get("resume"))
    return made


def test_the_callback_alone_does_what_the_mixin_does(folder, tmp_path):
    rate = Rate(weight=Weight("pull", 0.5), settle=2)
    callback = BackSlashCallback(rate)
    plain = transformers.Trainer(load(folder), arguments(tmp_path), train_dataset=examples(), callbacks=[callback])
    plain.train()
    mixed = fit(folder, tmp_path, rate)
    assert difference(weights(plain.model), weights(mixed.model)) == 0
    assert callback.history == mixed.backslash.history


def test_the_figures_are_in_the_logs_and_in_the_history(folder, tmp_path):
    made = fit(folder, tmp_path, Rate(weight=Weight("target-sparsity", 0.6), settle=2))
    rows = [row for row in made.state.log_history if "loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert [row["sparsity"] for row in rows] == [row["sparsity"] for row in made.backslash.history]
    assert rows[1]["sparsity"] == pytest.approx(0.6, abs=0.01)
    assert rows[1]["bits"] < rows[0]["bits"]
    assert set(made.backslash.history[0]) == {"step", "loss", "shape", "sparsity", "bits"}


def test_without_a_weight_the_rate_changes_nothing(folder, tmp_path):
    plain = transformers.Trainer(load(folder), arguments(tmp_path), train_dataset=examples())
    plain.train()
    none = fit(folder, tmp_path, Rate(form="none", settle=2))
    nothing = fit(folder, tmp_path, Rate(weight=Weight("pull", 0.0), settle=0))
    assert difference(weights(plain.model), weights(none.model)) == 0
    assert difference(weights(plain.model), weights(nothing.model)) == 0


def causal():
    """A language model, whose loss divides by the number of labels that the Trainer tells it."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **sizes))


@pytest.fixture
def steps_with_rate(monkeypatch):
    """The steps whose loss has got the rate, in the order in which it was asked for."""
    steps, loss = [], Constraint.loss

    def listening(constraint):
        steps.append(constraint.done)
        return loss(constraint)

    monkeypatch.setattr(Constraint, "loss", listening)
    return steps


@pytest.mark.parametrize("kind", ["the Trainer divides", "the model divides"])
def test_micro_batches_add_up_to_the_whole_batch_in_the_in_loss_form(folder, tmp_path, kind, steps_with_rate):
    rate = Rate(form="loss", weight=Weight("lambda", 50.0), shape="global", epsilon=Epsilon(1.0, relative=False))

    def trained(**more):
        model, teacher = (load(folder) if kind == "the Trainer divides" else causal() for _ in range(2))
        with torch.no_grad():
            next(iter(teacher.parameters())).mul_(2)
        data = [
            row | {"labels": row["input_ids"] if kind == "the model divides" else row["labels"]} for row in examples()
        ]
        options = arguments(tmp_path, optim="sgd", lr_scheduler_type="constant", **more)
        made = BackSlashTrainer(model, options, train_dataset=data, rate=rate, teacher=teacher)
        made.model_accepts_loss_kwargs = kind == "the model divides"
        before = weights(model)
        made.train()
        assert difference(before, weights(model)) > 1e-4
        return weights(model)

    # 20, 20 and 8 of the 48 examples, twice; the last are two micro-batches of four
    whole = trained(per_device_train_batch_size=20)
    parts = trained(per_device_train_batch_size=4, gradient_accumulation_steps=5)
    assert difference(whole, parts) < 1e-6
    assert steps_with_rate == [*range(6), *range(6)]


def test_a_second_training_of_one_trainer_begins_anew(folder, tmp_path, steps_with_rate):
    rate = Rate(form="loss", weight=Weight("lambda", 50.0), settle=0)
    made = fit(folder, tmp_path, rate, max_steps=3)
    first = made.backslash.history
    made.train()
    assert steps_with_rate == [0, 1, 2, 0, 1, 2]
    assert [row["step"] for row in made.backslash.history] == [row["step"] for row in first]


def test_distillation_is_the_divergence_of_the_softened_outputs(folder, tmp_path):
    made = BackSlashTrainer(
        load(folder), arguments(tmp_path), train_dataset=examples(), rate=Rate(form="none"), teacher=load(folder)
    )

    class Outputs(dict):
        pass

    own = Outputs(logits=torch.tensor([[2.0 * math.log(3), 0.0], [5.0, 5.0]]))
    made.teacher = lambda **inputs: Outputs(logits=torch.tensor([[0.0, 0.0], [9.0, -9.0]]))
    # Softened by 2: (3/4, 1/4) against (1/2, 1/2): KL = log(4/3)/2 ... the second has no label and does not count.
    expected = 4 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert float(made._distillation(own, {}, torch.tensor([1, -100]))) == pytest.approx(expected)


def test_a_teacher_moves_the_model_towards_its_outputs(folder, tmp_path):
    teacher = load(folder)
    teacher.classifier.bias.data += torch.tensor([3.0, 0.0, -3.0])
    taught = fit(folder, tmp_path, Rate(form="none"), teacher=teacher, distil=1.0, max_steps=40)
    batch = {name: torch.stack([torch.as_tensor(row[name]) for row in examples()]) for name in ("input_ids", "labels")}

    def distance(model):
        with torch.no_grad():
            own, other = (of(batch["input_ids"]).logits.log_softmax(-1) for of in (model.eval(), teacher.eval()))
        return float((own - other).abs().mean())

    assert distance(taught.model) < distance(load(folder)) / 2


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_that_is_resumed_from_a_checkpoint_ends_in_the_same_bits(folder, tmp_path, stop):
    rate = Rate(weight=Weight("target-sparsity", 0.7), metric="adam", settle=3, round=True)
    whole = fit(folder, tmp_path / "whole", rate, save_strategy="steps", save_steps=2)
    resumed = BackSlashTrainer(load(folder), arguments(tmp_path / "resumed"), train_dataset=examples(), rate=rate)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert difference(weights(whole.model), weights(resumed.model)) == 0
    assert resumed.backslash.history == whole.backslash.history


def test_a_checkpoint_without_a_rate_is_refused(folder, tmp_path):
    plain = transformers.Trainer(
        load(folder), arguments(tmp_path, save_strategy="steps", save_steps=2), train_dataset=examples()
    )
    plain.train()
    made = BackSlashTrainer(load(folder), arguments(tmp_path), train_dataset=examples(), rate=Rate())
    with pytest.raises(RecipeError, match="the checkpoint holds no state of the rate"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
