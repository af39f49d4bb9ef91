"""Files of weights that runs begin with: planning fills in their digests."""

from pathlib import Path

from longtail.errors import UserError
from longtail.runs.digest_cache import remembered_digest
from longtail.settings.params import Params
from longtail.settings.recipe import Recipe
from longtail.settings.references import with_references
from longtail.settings.weight_file import WeightFile


def with_weights(params: Params) -> Params:
    """The settings, with the digest of every file of weights that runs of tables and figures begin with.

    Raises:
        UserError: if one is not there, or not what the settings say of it.
    """
    shown = {method for table in params.tables.values() for method in table.methods}
    # of a run on balanced data beside those of a table; that there is such a method is checked later
    beside = (getattr(figure.options, "balanced", None) for figure in params.figures.values())
    shown |= {one.method for one in beside if one is not None and one.method in params.methods}
    names = {params.methods[method].stage_one for method in shown}
    found = {
        name: _with_weights(f"stage_one.{name}.network.pretrained", recipe)
        for name, recipe in with_references(names, params.stage_one).items()
    }
    if all(recipe is params.stage_one[name] for name, recipe in found.items()):
        return params
    recipes = {name: found.get(name, recipe) for name, recipe in params.stage_one.items()}
    return params.model_copy(update={"stage_one": recipes})


def _with_weights(key: str, recipe: Recipe) -> Recipe:
    options = recipe.network.options
    source = getattr(options, "pretrained", None)
    if not isinstance(source, WeightFile):
        return recipe
    digest = _digest(key, source.file)
    if source.sha256 not in (None, digest):
        raise UserError(f"{key}: {source.file}: has SHA-256 {digest}, and sha256 there says {source.sha256}")
    known = options.model_copy(update={"pretrained": source.model_copy(update={"sha256": digest})})
    network = recipe.network.model_copy(update={"options": known})
    return recipe.model_copy(update={"network": network})


def _digest(key: str, file: str) -> str:
    try:
        path = Path(file).expanduser()
        if path.is_file() or path.is_dir() or not path.exists():
            return remembered_digest(path)
        reason = "is no regular file"  # of which reading might have no end
    except OSError as error:
        reason = str(error.strerror)
    except RuntimeError as error:  # ~ of a user that is not here
        reason = str(error)
    raise UserError(f"{key}: {file}: {reason}; it should name a file of weights")
