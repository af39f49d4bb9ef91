rule page:
    input:
        lambda w: MISSING.inputs(PLAN.page["index"]),
    output:
        report(
            "<results>/index.html",
            caption="../report/page.rst",
            category="Overview",
            labels={"page": "all results"},
        ),
        "<results>/index.identity.json",
    log:
        "logs/page/index.log",
    benchmark:
        "logs/page/index.benchmark.tsv"
    localrule: True  # picture files, of which it shows some, are on this machine
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime="30m",
    params:
        identity=lambda w: PLAN.page["index"].identity[:16],
    shell:
        "longtail page index --identity {params.identity} --log {log}"


rule page_all:
    input:
        [page.outputs[0] for page in PLAN.page.values()],
    log:
        "logs/page_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check page --plan {params.plan} --log {log}"
