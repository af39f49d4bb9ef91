"""Snakemake's own records: what is no record is cleared, and what was broken off stays so."""

import json

import pytest

from longtail.orchestration.snakemake_records import BROKEN_OFF, FINISHED, mend

DAMAGE = [b"", b"{", b"null", b"[]", b"\0", bytes(range(256)), b"[" * 10_000]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("folder", [FINISHED, BROKEN_OFF])
def test_a_damaged_record_is_cleared(tmp_path, capsys, damage, folder):
    below = tmp_path / folder / "a"
    below.mkdir(parents=True)
    (below / "damaged").write_bytes(damage)
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


def test_without_snakemake_there_is_nothing_to_mend(tmp_path, capsys):
    mend(tmp_path)
    assert capsys.readouterr().err == ""
