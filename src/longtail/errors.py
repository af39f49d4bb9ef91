"""The one error that is the user's to mend."""


class UserError(Exception):
    """A mistake that one line explains: where, what, what is allowed. The command ends with exit code 2."""
