"""Pages out of templates, with delimiters that LaTeX and Markdown leave alone."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(folder: str, escaping: bool = False) -> Environment:
    """Reads the templates of a folder of the package; a name that a page is not given is an error.

    Args:
        folder: of the package, e.g. publish/templates.
        escaping: whether what is put in is escaped for HTML.
    """
    return Environment(
        loader=PackageLoader("longtail", folder),
        autoescape=escaping,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
