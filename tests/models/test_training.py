import dataclasses
import math
import signal
import textwrap
from pathlib import Path

import pytest
import torch

from adlib.config import Config, InputError
from adlib.models import autoencoders, ssim, training
from tests import forked
from tests.tolerances import NETWORK

SMALL = {"image_size": 32, "precision": "float32", "batch_size": 4, "epochs": 3, "device": "cpu"}


def pictures(n=9, size=32):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


@dataclasses.dataclass
class Folder:
    """What training needs of a run: its folder, its identity, and to be told of its progress."""

    folder: Path
    identity: str = "x"
    told: list = dataclasses.field(default_factory=list)

    def progress(self, state):
        self.told.append(state)


def trained(folder, images=6, **changes):
    """A network trained on some of nine images, the others validate; and its history."""
    config = Config(**(SMALL | changes))
    network, _ = autoencoders.build_network(config)
    run = folder and Folder(folder)
    history = training.train(network, pictures()[:images], pictures()[images:], config, run=run)
    return network, history


def test_loss_is_the_references():
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    loss, mse = training.loss_terms(x, y, 0.3)
    assert mse.item() == pytest.approx(((x - y)**2).mean().item())
    assert loss.item() == pytest.approx(0.7 * mse.item() + 0.3 *
                                        (1 - ssim.ssim_index(x, y, data_range=1.0).mean().item()))
    assert torch.equal(*training.loss_terms(x, y, 0.0))


@pytest.mark.parametrize("changes", [{}, {"ssim_weight": 0.5}, {"precision": "bf16"},
                                     {"images": 9}, {"model": "resnet18", "weights": "none"}])
def test_training_lowers_the_loss_and_is_the_same_every_time(tmp_path, changes):
    first, history = trained(tmp_path / "a", **changes)
    again, repeat = trained(tmp_path / "b", **changes)
    assert history[-1]["loss"] < history[0]["loss"]
    assert [row["loss"] for row in history] == [row["loss"] for row in repeat]
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(),
                                          again.state_dict().values(), strict=True))
    assert math.isnan(history[0]["held_out_loss"]) == ("images" in changes)


def test_other_seed_other_numbers(tmp_path):
    assert trained(tmp_path / "a")[1][-1]["loss"] != trained(tmp_path / "b", seed=1)[1][-1]["loss"]


def test_the_references_schedule_halves_the_learning_rate_on_a_plateau(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "mean_loss", lambda *args: 1.0)  # never gets better
    history = trained(tmp_path, images=4, epochs=14, schedule="reference", lr=1e-3)[1]
    assert [row["lr"] for row in history] == [1e-3] * 12 + [5e-4] * 2


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "loss_terms", lambda x, y, a: (y.mean() * math.nan, y.mean()))
    with pytest.raises(
            InputError,
            match="the loss became nan in epoch 1; the learning rate 0.01 is probably too high"):
        trained(tmp_path)


def test_a_loss_of_ones_own_is_the_one_that_falls():
    """(images, reconstructions) -> scalar, in training and on the validation images."""
    config, seen = Config(**SMALL), []

    def darkness(x, reconstruction):
        assert x.shape == reconstruction.shape and reconstruction.dtype == torch.float32
        seen.append(len(x))
        return reconstruction.mean()

    network, _ = autoencoders.build_network(config)
    history = training.train(network, pictures()[:6], pictures()[6:], config, loss=darkness)
    assert history[-1]["loss"] < history[0]["loss"] and history[0]["mse"] != history[0]["loss"]
    assert history[-1]["held_out_loss"] == pytest.approx(
        network.eval()(pictures()[6:] / 255).mean().item(), abs=6 * NETWORK)
    assert set(seen) == {4, 2, 3}  # batches of six images, and three to validate


def test_without_a_run_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(None)
    assert not list(tmp_path.iterdir())


def test_the_run_is_told_every_epoch_and_keeps_snapshots(tmp_path):
    config, run = Config(**SMALL), Folder(tmp_path)
    network, _ = autoencoders.build_network(config)
    history = training.train(network, pictures()[:6], pictures()[6:], config, run=run)
    assert [(one["epoch"], one["epochs"]) for one in run.told] == [(1, 3), (2, 3), (3, 3)]
    assert [one["loss"] for one in run.told] == [row["loss"] for row in history]
    assert set(training.snapshots(tmp_path)) == {1, 2, 3}


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
        images = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8,
                               generator=torch.Generator().manual_seed(0))
        config = Config(**{SMALL!r} | {{"epochs": 6, "precision": "bf16"}})
        network, _ = autoencoders.build_network(config)
        class Run:
            folder, identity = Path(sys.argv[1]), "x"
            def progress(self, state):
                if state["epoch"] == int(sys.argv[2]):
                    os.kill(os.getpid(), signal.SIGKILL)
        show_log()
        history = training.train(network, images[:6], images[6:], config, run=Run())
        print(repr([row["loss"] for row in history]),
              network.state_dict()["decoder.0.weight"].double().sum().item())
    """)

    def run(folder, kill_at):
        begun = forked.begin("python", [script, folder, kill_at])
        return begun.communicate(timeout=300)[0], begun.returncode

    unbroken, _ = run(tmp_path / "a", 0)
    _, code = run(tmp_path / "b", 4)
    assert code == -signal.SIGKILL and (tmp_path / "b" / "checkpoint.pt").exists()
    resumed, _ = run(tmp_path / "b", 0)
    assert "going on after epoch 3" in resumed
    assert resumed.splitlines()[-1] == unbroken.splitlines()[-1]


def test_a_checkpoint_of_other_inputs_is_not_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0)
    trained(tmp_path)
    caplog.clear()  # whatever the level was
    caplog.set_level("INFO", "adlib")
    config = Config(**SMALL)
    network, _ = autoencoders.build_network(config)
    training.train(network, pictures()[:6], None, config, run=Folder(tmp_path, identity="y"))
    assert len(caplog.messages) == config.epochs
    assert not any("going on" in line for line in caplog.messages)


@pytest.mark.parametrize("kept", [0, 100, -100], ids=["empty", "begun", "cut off"])
def test_a_damaged_checkpoint_is_as_good_as_none(tmp_path, monkeypatch, caplog, kept):
    """As a machine that lost its power may leave it: the same command still completes the run."""
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0)
    first, _ = trained(tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    again, history = trained(tmp_path)
    assert len(history) == SMALL["epochs"] and "checkpoint.pt is damaged" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(),
                                                 again.state_dict().values(), strict=True))


def test_a_checkpoint_on_a_disk_that_is_away_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0)
    trained(tmp_path)

    def away(*_, **__):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(torch, "load", away)
    with pytest.raises(OSError, match="Stale"):
        trained(tmp_path)
    assert (tmp_path / "checkpoint.pt").stat().st_size


def test_scores_of_every_epoch_that_was_kept(tmp_path):
    config = Config(**SMALL)
    detector = autoencoders.Autoencoder(config)
    detector.fit(pictures()[:6], pictures()[6:], run=Folder(tmp_path))
    with torch.no_grad():
        y = detector.network.eval()(pictures() / 255)
    expected = ((y - pictures() / 255)**2).mean(dim=(1, 2, 3)).double()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    by_epoch = detector.scores_over_epochs(pictures())
    assert list(by_epoch) == [1, 2, 3] and by_epoch[3].dtype == torch.float64
    # In another memory layout; the error of an error of some 0.1 in [0,1].
    assert torch.allclose(by_epoch[3], expected, rtol=20 * NETWORK, atol=0)
    assert not torch.equal(by_epoch[1], by_epoch[3])
    assert detector.scores_over_epochs(pictures()[:0])[2].shape == (0, )
    # The detector stays that of the last epoch.
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
