"""Errors whose message is meant for the person at the screen: what happened and what to change."""


class NetPriorError(Exception):
    """Base of every error that is shown as it is, without a traceback."""


class InvalidSettings(NetPriorError, ValueError):
    """Settings, an experiment or a recording that do not fit."""


class BadImage(NetPriorError, ValueError):
    """An upload that is not a usable image."""


class Unsolvable(NetPriorError):
    """A method was asked for a problem that it does not accept, or it broke down while solving."""


class MissingPrior(NetPriorError):
    """A checkpoint that a method needs is not there, or its file is not what it claims to be."""
