"""Snakemake's own records: what is no record is cleared, and what was broken off stays so."""

import json
import os
import time
from pathlib import Path

import pytest

from longtail.orchestration import snakemake_records
from longtail.orchestration.snakemake_records import AT_WORK, BROKEN_OFF, FINISHED, mend

DAMAGE = [b"", b"{", b"null", b"[]", b"\0", bytes(range(256)), b"[" * 10_000]


def written(file: Path, data: bytes, ago: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    os.utime(file, (time.time() - ago,) * 2)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("folder", [FINISHED, BROKEN_OFF])
def test_a_damaged_record_is_cleared(tmp_path, capsys, damage, folder):
    below = tmp_path / folder / "a"
    written(below / "damaged", damage, ago=AT_WORK + 1)
    (below / "good").write_text('{"code": "x"}')
    mend(tmp_path)
    if folder == BROKEN_OFF:
        assert json.loads((below / "damaged").read_text()) == {}
    else:
        assert not (below / "damaged").exists()
    assert (below / "good").read_text() == '{"code": "x"}'
    assert capsys.readouterr().err.endswith("cleared 1 damaged record of Snakemake's own\n")
    mend(tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("folder", [FINISHED, BROKEN_OFF])
def test_what_another_snakemake_is_about_to_write_is_left_to_it(tmp_path, capsys, folder):
    half = tmp_path / folder / "half"
    written(half, b'{"code": ', ago=AT_WORK / 2)
    mend(tmp_path)
    assert half.read_bytes() == b'{"code": '
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("before", [True, False], ids=["before it is read", "after it is read"])
@pytest.mark.parametrize("folder", [FINISHED, BROKEN_OFF])
def test_a_record_whose_job_ends_meanwhile_stays_deleted(tmp_path, monkeypatch, capsys, folder, before):
    is_damaged = snakemake_records._is_damaged
    ended = tmp_path / folder / "ended"
    written(ended, b"", ago=AT_WORK + 1)

    def ends(file: Path) -> bool:
        found = before or is_damaged(file)
        file.unlink()
        return is_damaged(file) if before else found

    monkeypatch.setattr(snakemake_records, "_is_damaged", ends)
    mend(tmp_path)
    assert not ended.exists()
    assert capsys.readouterr().err == ""


def test_without_snakemake_there_is_nothing_to_mend(tmp_path, capsys):
    mend(tmp_path)
    assert capsys.readouterr().err == ""
