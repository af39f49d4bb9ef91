rule frame:
    input:
        lambda w: MISSING.inputs(PLAN.frame["runs"]),
    output:
        multiext(
            "<results>/",
            "runs.csv",
            "curves.csv",
            "metrics.json",
            "runs.identity.json",
        ),
    log:
        "logs/frame/runs.log",
    benchmark:
        "logs/frame/runs.benchmark.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime="10m",
    params:
        identity=lambda w: PLAN.frame["runs"].identity[:16],
    shell:
        "longtail frame runs --identity {params.identity} --log {log}"


rule frame_all:
    input:
        [frame.outputs[0] for frame in PLAN.frame.values()],
    log:
        "logs/frame_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check frame --plan {params.plan} --log {log}"
