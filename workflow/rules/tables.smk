rule tables:
    input:
        lambda w: MISSING.inputs(PLAN.tables[w.table]),
    output:
        report(
            "<tables>/{table}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        multiext("<tables>/{table}", ".csv", ".md", ".tex", ".identity.json"),
    log:
        "logs/tables/{table}.log",
    benchmark:
        "logs/tables/{table}.benchmark.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime="10m",
    params:
        identity=lambda w: PLAN.tables[w.table].identity[:16],
    shell:
        "longtail tables {wildcards.table} --identity {params.identity} --log {log}"


rule tables_all:
    input:
        [table.outputs[0] for table in PLAN.tables.values()],
    log:
        "logs/tables_all.log",
    localrule: True
    params:
        plan=PLAN.digest,
    shell:
        "longtail check tables --plan {params.plan} --log {log}"
