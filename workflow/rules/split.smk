rule split:
    input:
        lambda w: ancient([run.record for run in PLAN.split[w.run].inputs]),
    output:
        multiext(
            "<splits>/{run}/",
            "train.csv",
            "validation.csv",
            "test.csv",
            "counts.csv",
            "run.json",
        ),
    log:
        "logs/split/{run}.log",
    benchmark:
        "logs/split/{run}.benchmark.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime="10m",
    params:
        folder=lambda w: PLAN.split[w.run].folder,
    shell:
        "longtail split {wildcards.run} --into {params.folder} --log {log}"


rule split_all:
    input:
        [run.record for run in PLAN.split.values()],
    log:
        "logs/split_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check split --plan {params.plan} --log {log}"
