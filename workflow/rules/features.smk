rule features:
    input:
        lambda w: ancient([run.record for run in PLAN.features[w.run].inputs]),
    output:
        multiext(
            "<results>/features/{run}/",
            "train.safetensors",
            "views.safetensors",
            "validation.safetensors",
            "test.safetensors",
            "head.safetensors",
            "run.json",
        ),
    log:
        "logs/features/{run}.log",
    benchmark:
        "logs/features/{run}.benchmark.tsv"
    threads: lambda w: 1 if gpus(PLAN.features[w.run]) else PLAN.features[w.run].threads
    resources:
        gpu=lambda w: gpus(PLAN.features[w.run]),
        cpus_per_task=lambda w: PLAN.features[w.run].cpus,
        mem_mb=lambda wildcards, attempt: PLAN.features[wildcards.run].memory * attempt,
        runtime=lambda wildcards, attempt: f"{30 * attempt}m",
    params:
        folder=lambda w: PLAN.features[w.run].folder,
    shell:
        "longtail features {wildcards.run} --into {params.folder} --log {log}"


rule features_all:
    input:
        [run.record for run in PLAN.features.values()],
    log:
        "logs/features_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check features --plan {params.plan} --log {log}"
