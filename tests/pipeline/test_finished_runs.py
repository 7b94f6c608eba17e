"""What is wrong is said of a finished run as of a new one, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import oracle_home as oracle
import pytest

from autoseg.pipeline import TrainSettings, train

NETWORK = {"network": "oracle_home:Oracle", "device": "cpu"}
UNKNOWN = [
    ({**NETWORK, "options": {"loss": "dyce"}}, "loss: expected one of .*dice_ce"),
    ({**NETWORK, "options": {"optimizer": "adm"}}, "optimizer: expected one of"),
    ({"network": "plain_unett", "device": "cpu"}, "network: expected one of .*plain_unet"),
    ({**NETWORK, "trainer": "Trainr"}, "trainer: expected one of .*Trainer"),
]


def files(home: Path) -> set[Path]:
    return {path.relative_to(home) for path in (home / "results").rglob("*")}


@pytest.mark.parametrize("tag", ["", "x"])
@pytest.mark.parametrize(("settings", "message"), UNKNOWN)
def test_unknown_names_are_refused_where_nothing_is_left_to_train_too(shared_oracle_home, settings, message, tag):
    home = shared_oracle_home()
    before = files(home)
    with pytest.raises(ValueError, match=message):
        train(1, "3d_fullres", 0, TrainSettings(**settings, tag=tag), home=home)
    assert files(home) == before


def test_a_damaged_run_record_is_an_error_before_the_run_is_called_finished(oracle_home, caplog):
    home = oracle_home()
    record = home / "results" / oracle.DATASET / oracle.MODEL[3] / "fold_0" / "run.json"
    record.write_text(record.read_text()[:200])
    with pytest.raises(ValueError, match=r"run\.json.*damaged"):
        train(1, "3d_fullres", 0, TrainSettings(**NETWORK), home=home)
    assert "finished" not in caplog.text
