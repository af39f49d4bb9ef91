rule stage_one:
    input:
        lambda w: ancient([run.record for run in PLAN.stage_one[w.run].needs.values()]),
    output:
        multiext(
            "<results>/stage_one/{run}/",
            "model.safetensors",
            "history.csv",
            "metrics.json",
            "run.json",
        ),
    log:
        "logs/stage_one/{run}.log",
    benchmark:
        "logs/stage_one/{run}.benchmark.tsv"
    threads: lambda w: PLAN.stage_one[w.run].devices
    resources:
        gpu=lambda w: gpus(PLAN.stage_one[w.run]),
        cpus_per_task=lambda w: PLAN.stage_one[w.run].cpus,
        mem_mb=lambda wildcards, attempt: PLAN.stage_one[wildcards.run].memory * attempt,
        runtime=lambda wildcards, attempt: f"{12 * attempt}h",
    params:
        folder=lambda w: PLAN.stage_one[w.run].folder,
    shell:
        "longtail stage-one {wildcards.run} --into {params.folder} --log {log}"


rule stage_one_all:
    input:
        [run.record for run in PLAN.stage_one.values()],
    log:
        "logs/stage_one_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check stage_one --plan {params.plan} --log {log}"
