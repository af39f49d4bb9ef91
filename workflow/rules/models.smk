rule models:
    input:
        lambda w: MISSING.inputs(PLAN.models[w.model]),
    output:
        multiext(
            "<results>/models/{model}/",
            "model.safetensors",
            "model.onnx",
            "model.json",
            "README.md",
            "choice.csv",
            "model.identity.json",
        ),
    log:
        "logs/models/{model}.log",
    benchmark:
        "logs/models/{model}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: f"{2 * attempt}h",
    params:
        identity=lambda w: PLAN.models[w.model].identity[:16],
    shell:
        "longtail models {wildcards.model} --identity {params.identity} --log {log}"


rule models_all:
    input:
        [model.outputs[0] for model in PLAN.models.values()],
    log:
        "logs/models_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check models --plan {params.plan} --log {log}"
