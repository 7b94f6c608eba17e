"""Checkpoints hold tensors and JSON, appear whole or not at all, and say which file is broken."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.runtime.checkpoints import load_checkpoint, load_matching, save_checkpoint


def network(out: int = 2) -> torch.nn.Module:
    torch.manual_seed(out)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, out, 1))


def test_states_and_meta_come_back(tmp_path: Path):
    one = network()
    optimizer = torch.optim.AdamW(one.parameters(), 0.1)
    one(torch.ones(1, 1, 5, 5)).sum().backward()
    optimizer.step()
    meta = {"iteration": 3, "path": tmp_path, "numbers": (np.float32(0.5), np.int64(2))}
    save_checkpoint(tmp_path / "new" / "c.pt", {"network": one.state_dict(), "optimizer": optimizer.state_dict()}, meta)
    states, found = load_checkpoint(tmp_path / "new" / "c.pt")
    assert found == {"iteration": 3, "path": str(tmp_path), "numbers": [0.5, 2]}
    assert set(states) == {"network", "optimizer"}
    assert all(torch.equal(tensor, states["network"][name]) for name, tensor in one.state_dict().items())
    other = torch.optim.AdamW(network().parameters(), 0.5)
    other.load_state_dict(states["optimizer"])
    assert torch.equal(next(iter(other.state.values()))["exp_avg"], next(iter(optimizer.state.values()))["exp_avg"])
    assert set(torch.load(tmp_path / "new" / "c.pt", weights_only=True)) == {"network", "optimizer", "meta"}, "without running code"


def test_a_file_that_would_run_code_is_refused(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"network": Evil(), "meta": "{}"}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c\.pt"):
        load_checkpoint(tmp_path / "c.pt")
    assert not (tmp_path / "ran").exists()


def test_damaged_and_foreign_files_are_named(tmp_path: Path):
    good = tmp_path / "good.pt"
    save_checkpoint(good, {"network": network().state_dict()}, {})
    whole = good.read_bytes()
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({"network": {}}, tmp_path / "no_meta.pt")
    torch.save({"network": {}, "meta": "{half"}, tmp_path / "half_meta.pt")
    contents = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"hello", "pickle": pickle.dumps({"meta": "{}"}, protocol=2)}
    for name, content in contents.items():
        (tmp_path / f"{name}.pt").write_bytes(content)
    for name in (*contents, "tensor", "no_meta", "half_meta"):
        with pytest.raises(ValueError, match=rf"{name}\.pt"):
            load_checkpoint(tmp_path / f"{name}.pt")
    with pytest.raises(ValueError, match=r"missing\.pt"):
        load_checkpoint(tmp_path / "missing.pt")


def test_a_save_that_fails_leaves_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"network": {"w": torch.ones(2)}}, {"iteration": 1})

    def killed(_: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"network": {"w": torch.zeros(2)}}, {"iteration": 2})
    monkeypatch.undo()
    assert load_checkpoint(path)[1] == {"iteration": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_meta_that_json_cannot_hold_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="meta"):
        save_checkpoint(tmp_path / "c.pt", {}, {"function": print})
    assert not list(tmp_path.iterdir())


def test_what_fits_by_name_and_shape_is_loaded_and_the_rest_kept():
    source, target = network(out=2), network(out=5)
    fresh = target[2].weight.clone()
    loaded, missing = load_matching(target, {**source.state_dict(), "elsewhere": torch.ones(1)})
    assert missing == ["2.bias", "2.weight"]
    assert "0.weight" in loaded and "elsewhere" not in loaded
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[2].weight, fresh)
