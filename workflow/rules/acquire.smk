rule acquire:
    output:
        multiext(
            "data/raw/{run}/",
            "train.safetensors",
            "test.safetensors",
            "classes.json",
            "run.json",
        ),
    log:
        "logs/acquire/{run}.log",
    benchmark:
        "logs/acquire/{run}.benchmark.tsv"
    localrule: True  # the nodes of a cluster often have no network
    threads: 1
    resources:
        mem_mb=2000,
        runtime="30m",
    params:
        folder=lambda w: PLAN.acquire[w.run].folder,
    shell:
        "longtail acquire {wildcards.run} --into {params.folder} --log {log}"


rule acquire_all:
    input:
        [run.record for run in PLAN.acquire.values()],
    log:
        "logs/acquire_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check acquire --plan {params.plan} --log {log}"
