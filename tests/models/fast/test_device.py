import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from adlib.config import Config, InputError
from adlib.models import registry
from adlib.models.fast import device as devices

CPU = torch.device("cpu")


@pytest.mark.parametrize("native, word", [(False, "float32"), (True, "bf16")])
def test_auto_precision_is_bf16_only_to_learn_and_where_the_processor_has_it(native, word,
                                                                             monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert devices.precision(Config(), CPU, learning=True) == word
    assert devices.precision(Config(fit="tile"), CPU) == word
    assert devices.precision(Config(), CPU) == "float32"  # of scores, on whatever processor
    assert devices.autocast(Config(), CPU, learning=True)._enabled == native
    assert not devices.autocast(Config(), CPU)._enabled
    for asked in ("float32", "bf16"):  # what was asked for is what one gets
        for learning in (False, True):
            assert devices.precision(Config(precision=asked), CPU, learning=learning) == asked


@pytest.mark.parametrize("native", [False, True])
def test_bf16_that_is_only_imitated_is_warned_of(native, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    for asked in ("auto", "float32"):
        registry.build(Config(model="mean_grey", precision=asked, device="cpu"))
    assert not caplog.text
    registry.build(Config(model="mean_grey", precision="bf16", device="cpu"))
    assert ("imitates: it takes some ten times as long" in caplog.text) != native


def test_auto_precision_is_float32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert devices.precision(Config(), CPU, learning=True) == "float32"
    assert devices.precision(Config(), torch.device("mps"), learning=True) == "float32"


@pytest.mark.parametrize("native, word", [(False, "float32"), (True, "bf16")])
def test_auto_precision_on_cuda(native, word, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: native)
    assert devices.precision(Config(), torch.device("cuda"), learning=True) == word
    assert devices.precision(Config(), torch.device("cuda")) == "float32"


def test_a_device_that_is_not_there():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(InputError, match=f"device is '{missing}', but torch .* sees none"):
        devices.pick_device(missing)


def test_auto_takes_the_fastest_that_is_there(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert devices.pick_device("auto").type == expected


def test_a_manifest_says_what_computed():
    said = devices.describe(Config(device="cpu", precision="float32"))
    assert said == {"device": "cpu", "threads": torch.get_num_threads(), "precision": "float32",
                    "learned_in": "float32"}


def test_while_one_thread_rounds_its_products_another_waits_with_its_own():
    """The precision of matrix products is the process's: a thread that did not wait would have its
    own rounded, too, or end the rounding of the first."""
    within, found = threading.Event(), []

    def other():
        within.wait()
        with devices.rounded_products(False):
            found.append(torch.get_float32_matmul_precision())

    second = threading.Thread(target=other)
    second.start()
    with devices.rounded_products(True):
        within.set()
        second.join(0.2)
        assert not found and torch.get_float32_matmul_precision() == "medium"
    second.join()
    assert found == ["highest"]


def test_threads_that_round_alike_multiply_together():
    met, found = threading.Barrier(2, timeout=30), []

    def multiply():
        with devices.rounded_products(True):
            met.wait()  # each while the other is at it
            found.append(torch.get_float32_matmul_precision())

    before = torch.get_float32_matmul_precision()
    both = [threading.Thread(target=multiply) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert found == ["medium", "medium"] and torch.get_float32_matmul_precision() == before


def test_a_module_is_moved_once_by_one_thread_at_a_time():
    moving, moves = threading.Lock(), []

    class Network(nn.Sequential):
        def to(self, *args, **kwargs):
            assert moving.acquire(blocking=False)  # else another is at it
            time.sleep(.05)
            moves.append(args)
            moving.release()
            return super().to(*args, **kwargs)

    network = Network(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: devices.placed(network), range(8)))
    assert moves == [(CPU, )]
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("learns", [False, True])
def test_parts_are_spread_over_threads_in_their_order(learns):
    met = threading.Barrier(2, timeout=30)

    def work(part):
        if part < 2:
            met.wait()
        return part, torch.get_num_threads(), torch.is_grad_enabled()

    with devices.threads(2), torch.set_grad_enabled(learns):
        assert devices.spread(work, iter(range(5))) == [(i, 1, learns) for i in range(5)]
        assert torch.get_num_threads() == 2
        assert devices.spread(lambda part: torch.get_num_threads(), [7]) == [2]


def test_what_another_device_does_is_asked_by_one_thread():
    with devices.threads(2):
        asked_by = devices.spread(lambda _: threading.get_ident(), range(4), torch.device("meta"))
    assert asked_by == [threading.get_ident()] * 4


def test_a_part_that_fails_is_told():
    with devices.threads(2), pytest.raises(ZeroDivisionError):
        devices.spread(lambda part: 1 / part, [2, 1, 0])
