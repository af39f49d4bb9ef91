rule label_issues:
    input:
        lambda w: MISSING.inputs(PLAN.label_issues["label_issues"]),
    output:
        multiext(
            "<results>/",
            "label_issues.csv",
            "label_issues_by_class.csv",
            "data_problems.html",
            "label_issues.identity.json",
        ),
    log:
        "logs/label_issues/label_issues.log",
    benchmark:
        "logs/label_issues/label_issues.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: f"{30 * attempt}m",
    params:
        identity=lambda w: PLAN.label_issues["label_issues"].identity[:16],
    shell:
        "longtail label-issues label_issues --identity {params.identity} --log {log}"


rule label_issues_all:
    input:
        [issues.outputs[0] for issues in PLAN.label_issues.values()],
    log:
        "logs/label_issues_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check label_issues --plan {params.plan} --log {log}"
