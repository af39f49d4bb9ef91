rule stage_two:
    input:
        lambda w: ancient([run.record for run in PLAN.stage_two[w.run].inputs]),
    output:
        multiext(
            "<results>/stage_two/{run}/",
            "classifier.safetensors",
            "predictions.safetensors",
            "history.csv",
            "metrics.json",
            "run.json",
        ),
    log:
        "logs/stage_two/{run}.log",
    benchmark:
        "logs/stage_two/{run}.benchmark.tsv"
    threads: 1
    resources:
        gpu=lambda w: gpus(PLAN.stage_two[w.run]),
        mem_mb=lambda wildcards, attempt: PLAN.stage_two[wildcards.run].memory * attempt,
        runtime=lambda wildcards, attempt: f"{30 * attempt}m",
    params:
        folder=lambda w: PLAN.stage_two[w.run].folder,
    shell:
        "longtail stage-two {wildcards.run} --into {params.folder} --log {log}"


rule stage_two_all:
    input:
        [run.record for run in PLAN.stage_two.values()],
    log:
        "logs/stage_two_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check stage_two --plan {params.plan} --log {log}"
