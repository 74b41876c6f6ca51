import errno
import http.server
import pickle
import socket
import threading
import time

import pytest
import torch

from adlib.config import Config, InputError
from adlib.models import autoencoders, weights


def state():
    from torchvision.models import resnet18

    return resnet18(weights=None).state_dict()


def save(tmp_path, value):
    path = tmp_path / "w.pth"
    torch.save(value, path)
    return Config(model="resnet18", weights=str(path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_type(tmp_path, dtype):
    wanted = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state().items()}
    model, word = autoencoders.build_network(
        save(tmp_path, {"state_dict": {f"module.{k}": v
                                       for k, v in wanted.items()}}))
    assert word.startswith("file:w.pth:")
    assert model.encoder.conv1.weight.dtype == torch.float32
    assert torch.equal(model.encoder.conv1.weight, wanted["conv1.weight"].float())


def test_weights_that_do_not_fit(tmp_path):
    wrong = state()
    del wrong["layer2.0.conv1.weight"]
    wrong["extra"] = torch.zeros(1)
    wrong["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(InputError) as error:
        autoencoders.build_network(save(tmp_path, wrong))
    for words in ("1 missing (layer2.0.conv1.weight)", "1 unexpected (extra)",
                  "conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7)"):
        assert words in str(error.value)


class Hostile:
    def __reduce__(self):
        return print, ("this must never be printed", )


def test_hostile_and_broken_weights(tmp_path, capsys):
    with pytest.raises(InputError, match="could run code"):
        autoencoders.build_network(save(tmp_path, {"a": Hostile()}))
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError):
        weights.read_state(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        weights.read_state(path)
    whole = (tmp_path / "w.pth").read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError):
        weights.read_state(path)
    with pytest.raises(InputError, match="a folder"):
        weights.read_state(tmp_path)
    with pytest.raises(InputError, match="missing"):
        weights.read_state(tmp_path / "none.pth")
    with pytest.raises(InputError, match="no state dict"):
        autoencoders.build_network(save(tmp_path, [1, 2]))
    assert "never be printed" not in capsys.readouterr().out


def test_imagenet_out_of_reach(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(InputError, match="three ways out.*weights: PATH.*weights: none"):
        autoencoders.build_network(Config(model="resnet18"))
    model, word = autoencoders.build_network(Config(model="resnet18", weights_fallback=True))
    assert word == "random:no_connection" and isinstance(model, autoencoders.ResNetAE)


def test_a_cache_that_cannot_be_written_to_is_no_missing_connection(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the place of a folder")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file" / "torch"))
    with pytest.raises(InputError, match="out of reach.*file.*three ways out"):
        autoencoders.build_network(Config(model="resnet18"))
    assert autoencoders.build_network(Config(model="resnet18", weights_fallback=True))[1] == (
        "random:unwritable")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_more_is_no_missing_connection(tmp_path, monkeypatch, code):
    def full(*args, **kwargs):
        raise OSError(code, "no room")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", full)
    assert autoencoders.build_network(Config(model="resnet18", weights_fallback=True))[1] == (
        "random:unwritable")


def test_imagenet_from_torchvisions_cache(tmp_path, monkeypatch):
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    wanted = state()
    torch.save(wanted, folder / ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1])
    model, word = autoencoders.build_network(Config(model="resnet18"))
    assert word == "imagenet:IMAGENET1K_V1"
    assert torch.equal(model.encoder.layer4[1].conv2.weight, wanted["layer4.1.conv2.weight"])


def test_real_weights(shared):
    model, word = autoencoders.build_network(
        Config(model="resnet18", weights=str(
            shared / "weights" / "resnet18-imagenet-to-layer3.pth")))
    assert word == "file:resnet18-imagenet-to-layer3.pth:41fb84d2ad52"
    assert model.encoder.layer3[0].conv1.weight.dtype == torch.float32


@pytest.mark.parametrize("content", [
    b"", b"hello\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"<html>",
    b"PK\3\4" + bytes(300)
])
def test_a_file_of_another_kind_is_not_called_hostile(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a torch state dict"):
        weights.read_state(path)


def test_damaged_files_raise_nothing_but_input_error(tmp_path):
    path, rng = tmp_path / "w.pth", torch.Generator().manual_seed(0)
    refused = 0
    for zipped in (True, False):
        torch.save({"conv1.weight": torch.zeros(4)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for place, value in zip(
                    torch.randint(min(len(whole), 600), (4, ), generator=rng).tolist(),
                    torch.randint(256, (4, ), generator=rng).tolist(), strict=True):
                damaged[place] = value
            path.write_bytes(damaged)
            try:
                weights.read_state(path)
            except InputError:
                refused += 1
    assert refused > 50


def test_weights_with_nan(tmp_path):
    wrong = state()
    wrong["layer3.0.conv1.weight"][0] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity.*layer3.0.conv1.weight"):
        autoencoders.build_network(save(tmp_path, wrong))


def in_torch_cache(tmp_path, monkeypatch, content):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


class Marks:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path, )


def test_code_in_torchs_cache_is_not_run(tmp_path, monkeypatch):
    # Torch checks a file's hash when it downloads it, not when it finds it.
    torch.save({"conv1.weight": Marks(tmp_path / "ran")}, tmp_path / "hostile.pth")
    in_torch_cache(tmp_path, monkeypatch, (tmp_path / "hostile.pth").read_bytes())
    with pytest.raises(InputError, match="could run code"):
        autoencoders.build_network(Config(model="resnet18"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello\n" * 50])
def test_damaged_file_in_torchs_cache(tmp_path, monkeypatch, content):
    in_torch_cache(tmp_path, monkeypatch, content)
    with pytest.raises(InputError, match="delete it from torch's cache"):
        autoencoders.build_network(Config(model="resnet18"))
    assert autoencoders.build_network(Config(model="resnet18",
                                     weights_fallback=True))[1] == "random:damaged"


class BadServer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        how = self.path.split("/")[1]
        if how == "missing":
            self.send_error(404)
        elif how == "garbage":
            self.wfile.write(b"garbage\r\n\r\n")
        elif how == "silent":
            time.sleep(1.5)
        # "wrong" has another content, "short" promises more than it sends, "breaks" stops inside a
        # chunk
        else:
            self.send_response(200)
            header = {
                "wrong": ("Content-Length", "9"), "short": ("Content-Length", "9000"),
                "breaks": ("Transfer-Encoding", "chunked")
            }
            self.send_header(*header[how])
            self.end_headers()
            self.wfile.write(b"ff\r\nabc" if how == "breaks" else b"not right")


@pytest.mark.parametrize("how", ["missing", "garbage", "silent", "wrong", "short", "breaks"])
def test_bad_download(tmp_path, monkeypatch, how):
    from torchvision.models import ResNet18_Weights

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BadServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "PATIENCE", 0.3)
    entry = ResNet18_Weights.IMAGENET1K_V1.value
    url = entry.url
    # a frozen dataclass
    object.__setattr__(entry, "url",
                       f"http://127.0.0.1:{server.server_port}/{how}/resnet18-f37072fd.pth")
    try:
        with pytest.raises(InputError, match="out of reach.*three ways out"):
            autoencoders.build_network(Config(model="resnet18"))
        assert autoencoders.build_network(Config(
            model="resnet18", weights_fallback=True))[1] == (
                "random:damaged" if how in ("wrong", "short") else "random:no_connection")
    finally:
        object.__setattr__(entry, "url", url)
        server.shutdown()
        server.server_close()
    assert not list(tmp_path.rglob("*.pth")) and socket.getdefaulttimeout() is None
