# Long-tailed image recognition, from raw data to tables: data flows down this list and never back.
# Settings are params.yaml unless `--config params=FILE` names others, which then publish in results/NAME/.


include: "workflow/rules/plan.smk"
include: "workflow/rules/acquire.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/stage_one.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/stage_two.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/label_issues.smk"
include: "workflow/rules/frame.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        PLAN.files,
