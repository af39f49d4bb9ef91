"""What `snakemake --lint` has to say."""

import re

from tests.workflow.conftest import ROOT, Project


def test_snakemake_lint_asks_for_nothing_but_an_environment_per_rule():
    """The workflow has one locked environment for all rules (requirements.lock), on purpose."""
    _, out = Project(ROOT).status("snakemake", "--lint")
    assert "Lints for" in out
    titles = set(re.findall(r"^    \* (.*?):?$", out, re.MULTILINE))
    assert titles == {"Specify a conda environment or container for each rule."}
