"""The loop: resumption bit for bit, selection and stopping, memory, signals, divergence."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.overrides import TorchFunctionMode

from skinlesion_cli.config.schema import Preprocessing, Recipe
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.models.backbones import backbone
from skinlesion_cli.models.network import LesionNet
from skinlesion_cli.models.training import trainer as loop
from skinlesion_cli.models.training.optimisation import make_optimizer
from skinlesion_cli.models.training.state import restore_state, state_counters, state_tensors
from skinlesion_cli.models.training.trainer import Trainer
from skinlesion_cli.progress import SilentReporter
from tests.support.class_lists import ISIC2018
from tests.support.limits import HANG_S

ROOT = Path(__file__).resolve().parents[2]

STEPS = 4
MODERN = {"ema_decay": 0.9, "mixup_alpha": 0.3, "drop_rate": 0.2, "label_smoothing": 0.1}
PUBLISHED = {
    "optimizer": "adam",
    "schedule": "plateau",
    "plateau_patience_epochs": 0,
    "selection": "mixed",
    "selection_bacc_weight": 0.85,
    "focal_gamma": 1.0,
    "weight_decay": 1e-4,
    "decay_norms_and_biases": True,
}

# The second epoch of three is half over when batch norm and the first stages stop.
FROZEN = MODERN | {"freeze_from": 0.5, "freeze_stages": 3}


def recipe(**settings):
    base = {"name": "test", "epochs": 3, "batch_size": 8, "input_size_px": 32, "learning_rate": 0.01}
    return Recipe.model_validate(base | settings)


def batch(seed, n=8):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 7, n)
    pixels = generator.integers(0, 255, (n, 32, 32, 3), dtype=np.uint8)
    pixels[:, :4] = (labels * 30)[:, None, None, None]
    return torch.from_numpy(pixels), torch.from_numpy(labels)


class Notes(SilentReporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def trainer(settings, *, network=None, batches=None, **rest):
    torch.manual_seed(0)
    chosen = recipe(**settings)
    if network is None:
        network = LesionNet(
            backbone("tiny"), Preprocessing(input_size_px=32), n_classes=7, drop_rate=chosen.drop_rate
        )

    def epoch(number, size_px, first_step):
        for step in range(first_step, STEPS):
            yield batch(100 * number + step)

    return Trainer(
        network=network,
        recipe=chosen,
        seed=7,
        steps_per_epoch=STEPS,
        batches=batches or epoch,
        validation=lambda: [batch(9999, 16), batch(9998, 16)],
        device=rest.pop("device", torch.device("cpu")),
        reporter=rest.pop("reporter", SilentReporter()),
        **rest,
        classes=ISIC2018,
    )


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.mark.parametrize("settings", [MODERN, PUBLISHED, FROZEN], ids=["modern", "published", "frozen"])
def test_a_run_interrupted_anywhere_ends_with_the_same_weights(settings, monkeypatch):
    whole = trainer(settings)
    whole.fit()
    monkeypatch.setattr(loop, "SAVE_INTERVAL_S", 0.0)
    for cut_after in (1, 5, 6, 11):
        saved = {}

        def keep(t, saved=saved):
            # As on disk: tensors through safetensors, counters through JSON, nothing shared with the run.
            counters = json.loads(json.dumps(state_counters(t), allow_nan=False))
            saved["state"] = load(save(state_tensors(t))), counters

        def until_cut(number, size_px, first_step, cut_after=cut_after):
            for step in range(first_step, STEPS):
                if number * STEPS + step == cut_after:
                    raise KeyboardInterrupt
                yield batch(100 * number + step)

        with pytest.raises(KeyboardInterrupt):
            trainer(settings, batches=until_cut, save=keep).fit()
        resumed = trainer(settings)
        restore_state(resumed, *saved["state"])
        assert resumed.progress.epoch * STEPS + resumed.progress.step == cut_after
        resumed.fit()
        assert_same(state(resumed.network), state(whole.network))
        assert resumed.progress == whole.progress


def test_a_fused_optimiser_resumes_with_the_same_weights():
    def fused(settings):
        made = trainer(settings)
        made.optimizer = make_optimizer(made.network, made.recipe, fused=True)
        return made

    def train(made, first, last):
        for step in range(first, last):
            made.train_step(batch(step))
            made.progress.step += 1

    whole, cut = fused(MODERN), fused(MODERN)
    assert whole.optimizer.param_groups[0]["fused"]
    # Channels last: the moments of a convolution do not lie row by row, as they do in the file.
    weight = next(p for p in cut.network.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    assert not weight.is_contiguous()
    train(whole, 0, 6)
    train(cut, 0, 3)
    stored = load(save(state_tensors(cut))), json.loads(json.dumps(state_counters(cut)))
    resumed = fused(MODERN)
    restore_state(resumed, *stored)
    train(resumed, 3, 6)
    assert_same(state(resumed.network), state(whole.network))


class MeanColour(nn.Module):
    """Compiled within seconds; uint8 (n, h, w, 3) in, logits (n, 7) out."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 7)

    def forward(self, images):
        return self.layer(images.float().mean(dim=(1, 2)) / 255)


def test_a_compiled_network_learns_the_same_and_keeps_the_names_of_its_weights(monkeypatch):
    compile_network = torch.compile

    def without_a_compiler(network, **settings):
        # It traces and differentiates as for the real one, and runs the result without generating code.
        return compile_network(network, backend="aot_eager", **settings)

    monkeypatch.setattr(torch, "compile", without_a_compiler)
    plain = trainer({}, network=MeanColour())
    compiled = trainer({}, network=copy.deepcopy(plain.network), compiles=True)
    plain.fit()
    compiled.fit()
    assert type(compiled.call_network) is not MeanColour
    left, right = state(plain.network), state(compiled.network)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.allclose(tensor, right[name], atol=1e-6), name
    losses = [[row["train_loss"] for row in t.progress.history] for t in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


def test_a_network_is_compiled_again_when_its_first_stages_are_frozen(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda network, **settings: calls.append(settings) or network)
    trainer(FROZEN | {"epochs": 2}, compiles=True).fit()
    assert calls == [{"dynamic": False}] * 2


def test_a_network_that_cannot_be_compiled_is_an_error_that_says_so(monkeypatch):
    compile_network = torch.compile

    def broken(graph, inputs):
        raise RuntimeError("no compiler was found")

    monkeypatch.setattr(
        torch, "compile", lambda network, **settings: compile_network(network, backend=broken)
    )
    with pytest.raises(SkinLesionError, match="could not compile the network") as error:
        trainer({}, network=MeanColour(), compiles=True).fit()
    assert "no compiler was found" in error.value.message
    assert "--compile" in error.value.hint


def test_frozen_parts_keep_their_values_from_that_step_on_and_the_rest_keeps_learning():
    seen, modes = {}, {}

    def forward(images, *rest):
        modes[found.progress.epoch * STEPS + found.progress.step] = any(
            module.training for module in found.network.modules() if isinstance(module, nn.BatchNorm2d)
        )
        return whole(images, *rest)

    def keep(t):
        seen[t.progress.epoch * STEPS + t.progress.step] = state(t.network)

    def epoch(number, size_px, first_step):
        for step in range(first_step, STEPS):
            keep(found)
            yield batch(100 * number + step)

    found = trainer(FROZEN, batches=epoch)
    whole, found.network.forward = found.network.forward, forward
    found.fit()
    modes = {step: going for step, going in modes.items() if step >= 6}
    # Half of three epochs of four steps: six steps learn everything, and so the seventh starts from step 6.
    changed = {name for name in seen[11] if not torch.equal(seen[6][name], seen[11][name])}
    before = {name for name in seen[6] if not torch.equal(seen[5][name], seen[6][name])}
    statistics = {name for name in seen[6] if "running" in name or "num_batches" in name}
    first = {name for name in seen[6] if name.startswith(("backbone.conv_stem", "backbone.bn1"))}
    first |= {name for name in seen[6] if name.startswith(("backbone.blocks.0.", "backbone.blocks.1."))}
    assert len(statistics) > 10
    assert len(first) > 10
    assert before == set(seen[6])
    # Also in the third epoch, whose start sets a network to training.
    assert modes == {6: False, 7: False, 8: False, 9: False, 10: False, 11: False}
    assert changed == set(seen[6]) - statistics - first


def test_a_saved_state_goes_through_safetensors_whole(tmp_path):
    found = trainer(MODERN | {"epochs": 1})
    found.fit()
    stored = load(save(state_tensors(found)))
    again = trainer(MODERN | {"epochs": 1})
    restore_state(again, stored, json.loads(json.dumps(state_counters(found))))
    left, right = state_tensors(found), state_tensors(again)
    # The network holds the best weights after the end, the state what a next step would start from.
    assert_same(left, right)
    assert {name.split(".")[0] for name in left} == {"network", "best", "average", "optimizer"}


def test_restored_moments_lie_in_memory_as_the_weights_do():
    found = trainer({})
    found.train_step(batch(0))
    again = trainer({})
    restore_state(again, load(save(state_tensors(found))), state_counters(found))
    kernel = again.network.backbone.conv_stem.weight
    assert kernel.stride() == (27, 1, 9, 3)
    (expected,) = (
        v for p, v in found.optimizer.state.items() if p is found.network.backbone.conv_stem.weight
    )
    for name in ("exp_avg", "exp_avg_sq"):
        assert again.optimizer.state[kernel][name].stride() == kernel.stride()
        assert torch.equal(again.optimizer.state[kernel][name], expected[name])


def test_training_lowers_the_loss_and_keeps_the_best_epoch():
    found = trainer({"epochs": 4, "learning_rate": 0.02, "ema_decay": 0.8})
    found.fit()
    history = found.progress.history
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    best = max(history, key=lambda row: row["val_bacc"])
    assert found.progress.best_epoch == best["epoch"]
    # What was kept is the network that has this BACC, the averaged one.
    labels, logits = trainer({}, network=found.network).validate()
    recalls = [(logits.argmax(1)[labels == c] == c).mean() for c in np.unique(labels)]
    assert np.mean(recalls) == pytest.approx(best["val_bacc"])


def scored(scores, settings):
    """Train with a validation that gives these BACCs: of ten images of class 0, so many are right."""
    found = trainer({"epochs": 9} | settings)
    remaining = iter(scores)

    def validate():
        logits = np.zeros((10, 7), dtype=np.float32)
        right = round(next(remaining) * 10)
        logits[:right, 0], logits[right:, 1] = 1.0, 1.0
        return np.zeros(10, dtype=np.int64), logits

    found.validate = validate
    found.fit()
    return found.progress


def test_early_stopping_counts_epochs_that_gain_less_than_min_delta():
    progress = scored([0.5, 0.7, 0.7, 0.8, 0.8, 0.9], {"stop_patience_epochs": 2, "min_delta": 0.15})
    # 0.7 gains; 0.7 and 0.8 (+0.1) do not: stopped after the fourth epoch.
    assert (len(progress.history), progress.best_epoch, progress.best_score) == (4, 2, 0.7)
    assert progress.finished


def test_last_epoch_is_kept_when_asked_for():
    assert scored([0.5, 0.9, 0.3], {"selection": "last", "epochs": 3}).best_epoch == 3


def test_classes_without_images_are_undefined_in_the_history():
    row = scored([0.5], {"epochs": 1}).history[0]
    assert row["sensitivity_MEL"] == 0.5
    assert row["sensitivity_BCC"] is None
    # Logits 1 and six 0: right ones cost ln(e + 6) - 1, wrong ones ln(e + 6).
    assert row["val_loss"] == pytest.approx(math.log(math.e + 6) - 0.5, abs=1e-6)


class Small(nn.Module):
    """A network with room for a given number of images; no batch norm, so that parts add up exactly."""

    def __init__(self, room):
        super().__init__()
        torch.manual_seed(0)
        self.room, self.layer = room, nn.Linear(3, 7)

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return self.layer(images.float().mean(dim=(1, 2)) / 255)


def test_out_of_memory_halves_the_batch_with_a_notice_and_the_same_gradients():
    reporter = Notes()
    cramped = trainer({}, network=Small(2), reporter=reporter)
    cramped.validation = lambda: [batch(1, 2)]
    cramped.fit()
    assert ["out of memory" in note and " 4 at a time" in note for note in reporter.notes] == [True, False]
    assert " 2 at a time" in reporter.notes[1]
    assert cramped.progress.parts == 4
    roomy = trainer({"accumulation_steps": 4}, network=Small(99))
    roomy.validation = lambda: [batch(1, 2)]
    roomy.fit()
    assert_same(state(cramped.network), state(roomy.network))
    whole = trainer({}, network=Small(99))
    whole.validation = lambda: [batch(1, 2)]
    whole.fit()
    assert torch.allclose(whole.network.layer.weight, roomy.network.layer.weight, atol=1e-5)


def test_the_failed_attempt_holds_no_memory_while_the_next_one_runs():
    class Remembered(Small):
        """Runs out of memory in the first backward pass, with all activations in memory."""

        def __init__(self):
            super().__init__(99)
            self.outputs, self.alive = [], []

        def forward(self, images):
            self.alive.append(sum(reference() is not None for reference in self.outputs))
            outputs = super().forward(images)
            if not self.outputs:
                outputs.register_hook(self.refuse)
            self.outputs.append(weakref.ref(outputs))
            return outputs

        def refuse(self, gradient):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    cramped = trainer({}, network=Remembered())
    cramped.train_step(batch(0))
    assert cramped.progress.parts == 2
    assert cramped.network.alive[:2] == [0, 0]


def test_images_are_tried_one_at_a_time_before_memory_is_too_small():
    # 6 images in 1, 2 and 4 parts are 6, 3 and 2 at a time.
    cramped = trainer({"batch_size": 6}, network=Small(1))
    cramped.train_step(batch(0, 6))
    assert cramped.progress.parts == 6


def test_validation_images_that_do_not_fit_are_processed_in_parts():
    reporter = Notes()
    cramped = trainer({}, network=Small(8), reporter=reporter)
    cramped.validation = lambda: [batch(1, 25), batch(2, 30)]
    labels, logits = cramped.validate()
    roomy = trainer({}, network=Small(99))
    roomy.validation = cramped.validation
    expected_labels, expected = roomy.validate()
    assert np.array_equal(labels, expected_labels)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert [note.split(" now ")[1] for note in reporter.notes] == [
        "processed 12 at a time",
        "processed 6 at a time",
    ]
    cramped.network.room = 0
    with pytest.raises(SkinLesionError, match="too little memory for a single image"):
        cramped.validate()


class Apple(TorchFunctionMode):
    """What is meant for an Apple GPU is computed on the CPU, without float64; copies are finished at once."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        given = [*args, *kwargs.values()]
        meant = any(isinstance(value, torch.device) and value.type == "mps" for value in given)
        if function is torch.Tensor.double or (meant and torch.float64 in given):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        # The copy would read memory that may belong to another tensor by then.
        assert not (meant and kwargs.get("non_blocking"))

        def here(value):
            return torch.device("cpu") if isinstance(value, torch.device) else value

        return function(*map(here, args), **{key: here(value) for key, value in kwargs.items()})


def test_a_step_on_an_apple_gpu_needs_no_float64_and_waits_for_its_images():
    settings = MODERN | {"clip_norm": 1.0}
    with Apple():
        apple = trainer(settings, device=torch.device("mps"))
        for step in range(3):
            apple.train_step(batch(step))
    expected = trainer(settings)
    for step in range(3):
        expected.train_step(batch(step))
    assert_same(state(apple.network), state(expected.network))
    assert apple.progress.loss_sum == pytest.approx(expected.progress.loss_sum, abs=1e-5)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_used_where_the_gpu_computes_in_it_and_not_where_it_is_emulated(monkeypatch, native):
    # As torch answers: before Ampere by emulation alone.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation
    )
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    assert trainer({}, device=torch.device("cuda")).autocast is native


def test_memory_for_not_even_one_image_is_an_error():
    with pytest.raises(SkinLesionError, match="too little memory for a single image"):
        trainer({}, network=Small(0)).fit()


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    class Broken(Small):
        def forward(self, images):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        trainer({}, network=Broken(9)).fit()


def test_divergence_is_an_error_that_says_where():
    class Exploding(Small):
        def forward(self, images):
            return super().forward(images) * float("inf")

    with pytest.raises(SkinLesionError, match="the loss became nan in epoch 1, step 1"):
        trainer({}, network=Exploding(99)).fit()


@pytest.fixture(scope="module")
def signalled():
    """What a training that was sent SIGTERM did, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.signalled_trainer"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_signal_waits_for_the_step_and_the_state_is_saved(signalled):
    assert signalled["training"] == {"stopped": True, "saved_after_steps": [3], "handler_restored": True}


def test_a_second_signal_does_not_wait(signalled):
    assert signalled["twice"] == {"held_first": True, "stopped": True}
