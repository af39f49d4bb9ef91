rule figures:
    input:
        lambda w: MISSING.inputs(PLAN.figures[w.figure]),
    output:
        report(
            "<results>/figures/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        multiext("<results>/figures/{figure}", ".svg", ".pdf", ".identity.json"),
    log:
        "logs/figures/{figure}.log",
    benchmark:
        "logs/figures/{figure}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: f"{10 * attempt}m",
    params:
        identity=lambda w: PLAN.figures[w.figure].identity[:16],
        caption=lambda w: PLAN.figures[w.figure].caption,
    shell:
        "longtail figures {wildcards.figure} --identity {params.identity} --log {log}"


rule figures_all:
    input:
        [figure.outputs[0] for figure in PLAN.figures.values()],
    log:
        "logs/figures_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check figures --plan {params.plan} --log {log}"
