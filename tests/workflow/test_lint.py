"""What `snakemake --lint` has to say."""

import json

from tests.workflow.conftest import ROOT, Project


def test_snakemake_lint_asks_for_nothing_but_an_environment_per_rule():
    """The workflow has one locked environment for all rules (requirements.lock), on purpose."""
    _, out = Project(ROOT).status("snakemake", "--lint", "json")
    found = json.loads(out[out.index("{") :])
    lints = [lint for rule in found["rules"] for lint in rule["lints"]]
    lints += [lint for snakefile in found["snakefiles"] for lint in snakefile["lints"]]
    titles = {lint["title"] for lint in lints}
    assert titles <= {"Specify a conda environment or container for each rule."}
