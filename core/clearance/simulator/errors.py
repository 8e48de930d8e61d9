"""Error answers in OpenAI's shape."""

from __future__ import annotations

from typing import Any

_KINDS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is invalid (simulated)."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided (simulated)."),
    403: ("invalid_request_error", "permission_denied", "You do not have access to this (simulated)."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist (simulated)."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests (simulated)."),
    500: ("server_error", None, "The server had an error while processing your request (simulated)."),
    503: ("server_error", "service_unavailable", "The engine is currently overloaded (simulated)."),
}


class ApiError(Exception):
    """An answer with an error status. `headers` go with it."""

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        kind, usual_code, usual_message = _KINDS.get(status, _KINDS[500] if status >= 500 else _KINDS[400])
        super().__init__(message or usual_message)
        self.status = status
        self.headers = headers or {}
        self.payload: dict[str, Any] = {
            "error": {"message": message or usual_message, "type": kind, "param": param, "code": code or usual_code}
        }


def bad_request(param: str | None, message: str, *, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def simulated(status: int, retry_after_ms: int | None) -> ApiError:
    """The error that a fault asks for; a 429 always says when to come again (default: after 1 s)."""
    if retry_after_ms is None and status == 429:
        retry_after_ms = 1000
    headers = {}
    if retry_after_ms is not None:
        headers = {"retry-after": str(-(-retry_after_ms // 1000)), "retry-after-ms": str(retry_after_ms)}
    return ApiError(status, headers=headers)


def script_failed(error: Exception) -> ApiError:
    """A script that raised is a broken test, so clients are told not to try again."""
    message = f"The simulator's script raised {type(error).__name__}: {error}"
    return ApiError(500, message, code="script_failed", headers={"x-should-retry": "false"})
