import math
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adlib.config import Config, InputError
from adlib.models import anomaly_maps, autoencoders, ssim, training

SMALL = {"image_size": 32, "precision": "float32", "batch_size": 4, "epochs": 3, "device": "cpu"}


def pictures(n=9, size=32):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def trained(folder, **changes):
    config = Config(**(SMALL | changes))
    model, _ = autoencoders.build(config)
    history = training.fit(model, pictures(), config, folder=folder, identity="x")
    return model, history


@given(st.integers(4, 300), st.floats(0, 0.6), st.integers(0, 99))
def test_split_is_a_partition(n, held_out, seed):
    kept, held = training.split(n, held_out, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(n))
    assert len(kept) >= 2 and (len(held) >= 1) == (held_out > 0)


def test_split_needs_two_to_train_on():
    with pytest.raises(InputError, match="2 good training images with held_out 0.5 leave 1"):
        training.split(2, 0.5, 0)


def test_loss_is_the_seeds():
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    loss, mse = training.loss_terms(x, y, 0.3)
    assert mse.item() == pytest.approx(((x - y)**2).mean().item())
    assert loss.item() == pytest.approx(0.7 * mse.item() + 0.3 *
                                        (1 - ssim.ssim_index(x, y, data_range=1.0).mean().item()))
    assert torch.equal(*training.loss_terms(x, y, 0.0))


@pytest.mark.parametrize("changes", [{}, {"ssim_weight": 0.5}, {"precision": "bf16"},
                                     {"held_out": 0}, {"model": "resnet18", "weights": "none"}])
def test_training_lowers_the_loss_and_is_the_same_every_time(tmp_path, changes):
    first, history = trained(tmp_path / "a", epochs=4, **changes)
    again, repeat = trained(tmp_path / "b", epochs=4, **changes)
    assert history[-1]["loss"] < history[0]["loss"]
    assert [row["loss"] for row in history] == [row["loss"] for row in repeat]
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(),
                                          again.state_dict().values(), strict=True))
    assert math.isnan(history[0]["held_out_loss"]) == (changes.get("held_out") == 0)


def test_other_seed_other_numbers(tmp_path):
    assert trained(tmp_path / "a")[1][-1]["loss"] != trained(tmp_path / "b", seed=1)[1][-1]["loss"]


def test_the_references_schedule_halves_the_learning_rate_on_a_plateau(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "held_out_loss", lambda *args: 1.0)  # never gets better
    history = trained(tmp_path, epochs=14, schedule="reference", lr=1e-3)[1]
    assert [row["lr"] for row in history] == [1e-3] * 12 + [5e-4] * 2


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "loss_terms", lambda x, y, a: (y.mean() * math.nan, y.mean()))
    with pytest.raises(
            InputError,
            match="the loss became nan in epoch 1; the learning rate 0.01 is probably too high"):
        trained(tmp_path)


def test_device_that_is_not_there():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(InputError, match=f"device is '{missing}', but torch .* sees none"):
        training.pick_device(missing)


def test_a_last_batch_of_one_joins_its_neighbour():
    assert [len(b) for b in training._batches(torch.arange(9), 4)] == [4, 5]
    assert [len(b) for b in training._batches(torch.arange(10), 4)] == [4, 4, 2]


def test_killed_and_started_again_equals_unbroken(tmp_path):
    script = textwrap.dedent(f"""
        import os, signal, sys, torch
        from pathlib import Path
        from adlib.models import autoencoders, training
        from adlib.config import Config, show_log
        training.CHECKPOINT_EVERY_S = 0
        pictures = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        config = Config(**{SMALL!r} | {{"epochs": 6, "precision": "bf16"}})
        model, _ = autoencoders.build(config)
        kill = lambda state: state["epoch"] == int(sys.argv[2]) and os.kill(os.getpid(), signal.SIGKILL)
        show_log()
        history = training.fit(model, pictures, config, folder=Path(sys.argv[1]), identity="x", progress=kill)
        print(repr([row["loss"] for row in history]), model.state_dict()["decoder.0.weight"].double().sum().item())
    """)

    def run(folder, kill_at):
        return subprocess.run([sys.executable, "-c", script,
                               str(folder), str(kill_at)], capture_output=True, text=True,
                              check=False)

    unbroken = run(tmp_path / "a", 0)
    killed = run(tmp_path / "b", 4)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "b" / "checkpoint.pt").exists()
    resumed = run(tmp_path / "b", 0)
    assert "going on after epoch 3" in resumed.stdout
    assert resumed.stdout.splitlines()[-1] == unbroken.stdout.splitlines()[-1]


def test_a_checkpoint_of_other_inputs_is_not_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0)
    trained(tmp_path)
    caplog.set_level("INFO", "adlib")
    config = Config(**SMALL)
    model, _ = autoencoders.build(config)
    training.fit(model, pictures(), config, folder=tmp_path, identity="y")
    said = caplog.messages
    assert len(said) == config.epochs and not any("going on" in line for line in said)


def test_scores_and_snapshots(tmp_path):
    model, _ = trained(tmp_path)
    config = Config(**SMALL)
    scores = anomaly_maps.mse_scores(model, pictures(), config)
    with torch.no_grad():
        expected = ((model.eval()(pictures() / 255) - pictures() / 255)**2).mean(dim=(1, 2, 3))
    assert scores == pytest.approx(expected.numpy(), rel=1e-4)
    by_epoch = anomaly_maps.scores_over_epochs(model, tmp_path, pictures(), config)
    assert list(by_epoch) == [1, 2, 3]
    assert by_epoch[3] == pytest.approx(scores, rel=1e-6)
    assert anomaly_maps.mse_scores(model, pictures()[:0], config).shape == (0, )


def test_examples(tmp_path):
    model, _ = trained(tmp_path)
    found = anomaly_maps.examples(model, pictures(5), Config(**SMALL))
    assert found["input"].shape == found["reconstruction"].shape == (
        5, 32, 32, 3) and found["residual"].shape == (5, 32, 32)
    assert found["residual"] == pytest.approx(
        abs(found["input"] - found["reconstruction"]).mean(-1), abs=1e-6)
