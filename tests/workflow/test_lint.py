"""What `snakemake --lint` has to say, and that every profile can plan the whole graph."""

import re

import pytest

from tests.workflow.conftest import ROOT, Project


def test_snakemake_lint_asks_for_nothing_but_an_environment_per_rule():
    """The workflow has one locked environment for all rules (requirements.lock), on purpose."""
    _, out = Project(ROOT).status("snakemake", "--lint")
    assert "Lints for" in out
    titles = set(re.findall(r"^    \* (.*?):?$", out, re.MULTILINE))
    assert titles == {"Specify a conda environment or container for each rule."}


@pytest.mark.parametrize("profile", sorted(file.parent.name for file in ROOT.glob("profiles/*/config.yaml")))
def test_every_profile_plans_the_page_and_the_report(profile):
    """Jobs of a group may depend on no job outside it that waits for one of the group."""
    words = ("snakemake", "-n", "--forceall", "--workflow-profile", f"profiles/{profile}")
    code, out = Project(ROOT).status(*words, "--config", "params=workflow/settings/demo.yaml")
    assert code == 0, out
    jobs = dict(re.findall(r"^([a-z_]+) +(\d+)$", out, re.MULTILINE))
    assert [jobs[rule] for rule in ("figures", "page", "report")] == ["5", "1", "1"]
