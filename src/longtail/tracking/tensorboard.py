"""A run as event files of TensorBoard: `tensorboard --logdir tracked/tensorboard`."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from longtail.tracking.logged import FOLDER, LoggedRun


def write(run: LoggedRun, place: str | None) -> str:
    """Write a run into the folder PLACE/RUN, where its own event files of before are deleted."""
    folder = Path(place or FOLDER / "tensorboard") / run.name
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for name, values in run.curves.items():
            for epoch, value in values.items():
                writer.add_scalar(name, value, epoch)
        for name, value in run.metrics.items():
            writer.add_scalar(name, value, 0)
        settings = {key: value for key, value in run.settings.items() if isinstance(value, int | float | str)}
        writer.add_hparams(
            settings, {f"result/{name}": value for name, value in run.metrics.items()}, None, "."
        )
        writer.add_text("tags", "\n".join(f"- {key}: {value}" for key, value in run.tags.items()))
        for name, file in run.tables.items():
            writer.add_text(f"table/{name}", file.with_suffix(".md").read_text("utf-8"))
    return f"{folder}; `tensorboard --logdir {folder.parent}` shows it"
