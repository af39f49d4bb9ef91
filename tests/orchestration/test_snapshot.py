"""The settings that jobs on other machines read: those of the moment, to the letter, or one line."""

import pytest

from longtail.errors import UserError
from longtail.orchestration.snapshot import FROZEN, settings
from longtail.settings.params import Params
from tests.workflow.conftest import TINY


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The copy of a settings file that was edited since."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FROZEN, "")
    file = tmp_path / "params.yaml"
    file.write_text(TINY.replace("A scaled-down table", "'1e3'").replace("label: CE,", "label: 'on',"))
    settings("params.yaml", main=True)
    file.write_text(TINY)
    (copy,) = (tmp_path / ".longtail/plan/settings").glob("*")
    return copy


def test_a_job_reads_the_settings_of_the_moment(copy):
    table = settings("params.yaml", main=False).tables["table2"]
    assert table.caption == "1e3"  # not the number that a YAML file could make of it
    assert table.rows[0].label == "on"


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"{}", b"null"])
def test_a_damaged_copy_is_one_line_and_planning_heals_it(copy, damage):
    good = copy.read_bytes()
    copy.write_bytes(damage)
    with pytest.raises(UserError, match="is damaged; type the command again"):
        settings("params.yaml", main=False)
    copy.parents[3].joinpath("params.yaml").write_text(
        TINY.replace("A scaled-down table", "'1e3'").replace("label: CE,", "label: 'on',")
    )
    settings("params.yaml", main=True)
    assert copy.read_bytes() == good


def test_without_a_copy_the_file_is_read(copy, monkeypatch):
    monkeypatch.setenv(FROZEN, str(copy.with_name("gone.json")))
    assert settings("params.yaml", main=False) == Params.load("params.yaml")
