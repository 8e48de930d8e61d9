"""Errors that only an authority behind a network can give. An outage is AuthorityUnavailable, a no is Denied."""

from __future__ import annotations

from clearance.errors import BadAnswer, ClearanceError

__all__ = ["BadAnswer", "Forbidden", "NotAuthorized", "NotOffered"]


class NotAuthorized(ClearanceError):
    """The server does not accept the API key. Nothing was decided, and waiting does not help."""

    code = "UNAUTHORIZED"
    status = 401


class Forbidden(NotAuthorized):
    """The key is valid and may not do this: another tenant, or a permission that it lacks."""

    code = "FORBIDDEN"
    status = 403


class NotOffered(ClearanceError):
    """The server speaks the base protocol only; this needs a Clearance server."""

    code = "NOT_OFFERED"
    status = 501
