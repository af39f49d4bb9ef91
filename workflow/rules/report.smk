report: "../report/workflow.rst"


rule report:
    input:
        lambda w: MISSING.inputs(PLAN.report["report"]),
    output:
        "<results>/report.html",
        "<results>/report.identity.json",
    log:
        "logs/report/report.log",
    benchmark:
        "logs/report/report.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: f"{10 * attempt}m",
    params:
        identity=lambda w: PLAN.report["report"].identity[:16],
    shell:
        "longtail report report --identity {params.identity} --log {log}"


rule report_all:
    input:
        [report.outputs[0] for report in PLAN.report.values()],
    log:
        "logs/report_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check report --plan {params.plan} --log {log}"
