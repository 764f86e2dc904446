"""Checkpoints are whole or absent, and only checkpoints are loaded."""

import argparse
import os
import pickle

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from gan_plugin import UserError
from gan_plugin.engine.checkpoint import SafeCheckpointer
from gan_plugin.engine.export import read_generator
from gan_plugin.files import UnsafeCheckpointError, read_safely


class TestSafeCheckpointer:
    def make(self, tiny_cfg, folder):
        model = build_model(tiny_cfg)
        return model, SafeCheckpointer(model, str(folder))

    def test_weights_that_are_not_finite_are_not_saved(self, tiny_cfg, tmp_path):
        model, checkpointer = self.make(tiny_cfg, tmp_path)
        checkpointer.save("good")
        torch.nn.init.constant_(model.roi_heads.mask_head.predictor.bias, float("nan"))
        with pytest.raises(UserError, match="bad.pth was not written because roi_heads.mask_head.predictor.bias"):
            checkpointer.save("bad")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["good.pth", "last_checkpoint"]

    def test_a_full_disk_leaves_the_last_checkpoint_alone(self, tiny_cfg, tmp_path, monkeypatch):
        _, checkpointer = self.make(tiny_cfg, tmp_path)
        checkpointer.save("model_0000001")
        before = (tmp_path / "model_0000001.pth").read_bytes()

        def full(data, file):
            file.write(b"half of it")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(UserError, match="No space left on device.*free some disk space"):
            checkpointer.save("model_0000001")
        assert (tmp_path / "model_0000001.pth").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]

    def test_the_best_is_not_what_a_run_resumes_from(self, tiny_cfg, tmp_path):
        _, checkpointer = self.make(tiny_cfg, tmp_path)
        checkpointer.save("model_0000001")
        checkpointer.save("model_best")
        assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"

    @pytest.mark.parametrize(
        "content",
        [b"", b"no checkpoint", b"eh?\n" * 99, b"PK\x03\x04 cut short", "list", "other", "foreign", "missing"],
    )
    def test_what_is_no_checkpoint_is_named(self, tiny_cfg, tmp_path, content):
        _, checkpointer = self.make(tiny_cfg, tmp_path)
        path = tmp_path / "weights.pth"
        if content == "list":
            torch.save([1, 2], path)
        elif content == "other":
            torch.save({"model": {}}, path)
        elif content == "foreign":
            torch.save({"model": {"foo": torch.zeros(1)}}, path)
        elif content != "missing":
            path.write_bytes(content)
        with pytest.raises(UserError, match=str(path)):
            checkpointer.load(str(path))

    def test_pickled_code_is_not_run(self, tiny_cfg, tmp_path):
        _, checkpointer = self.make(tiny_cfg, tmp_path)

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "trapped"),)

        torch.save({"model": Trap()}, tmp_path / "trap.pth")
        with pytest.raises(UserError, match="trap.pth"):
            checkpointer.load(str(tmp_path / "trap.pth"))
        assert not (tmp_path / "trapped").exists()


def whole_and_damaged(folder):
    """name -> path, of files that hold objects, and of files that are no whole checkpoints."""
    weights = {"model": {"weight": torch.zeros(500)}}
    with_object = weights | {"arguments": argparse.Namespace(lr=1)}
    torch.save(with_object, folder / "zip.pth")
    torch.save(with_object, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "pickle.pth").write_bytes(pickle.dumps({"model": {"weight": np.zeros(3)}}))
    for name, options in (("zip", {}), ("legacy", {"_use_new_zipfile_serialization": False})):
        torch.save(weights, folder / "whole.pth", **options)
        content = (folder / "whole.pth").read_bytes()
        (folder / f"cut_{name}.pth").write_bytes(content[: len(content) // 2])
    (folder / "cut_pickle.pth").write_bytes((folder / "pickle.pth").read_bytes()[:-9])
    (folder / "page.pth").write_bytes(b"<!DOCTYPE html><html></html>")
    (folder / "noise.pth").write_bytes(bytes(range(255, 0, -1)))
    return {path.stem: path for path in folder.glob("*.pth")}


def test_objects_in_a_file_are_told_from_damage(tmp_path):
    files = whole_and_damaged(tmp_path)
    for name, path in files.items():
        if name == "whole":
            continue
        holds = {"zip": "argparse.Namespace", "legacy": "argparse.Namespace", "pickle": "numpy"}.get(name)
        kind = UnsafeCheckpointError if holds else UserError
        with pytest.raises(kind) as caught:
            read_safely(path)
        assert type(caught.value) is kind and str(path) in str(caught.value), name
        words = f"holds objects besides weights ({holds}" if holds else "is not a checkpoint, or was cut short"
        assert words in str(caught.value) and ("--allow-pickle" in str(caught.value)) == bool(holds), name
    for name in ("zip", "legacy"):
        with pytest.raises(UserError, match="--allow-pickle"):
            read_generator(files[name])
        assert read_generator(files[name], allow_pickle=True)["weight"].shape == (500,)
