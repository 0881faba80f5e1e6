"""Errors that are answers: a status, a code, and words."""

import msgspec

from .. import wire
from ..errors import (
    Denied,
    InvalidModule,
    ModuleNotFound,
    OpenerTimeout,
    UsageError,
    WasisupError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .messages import Response

# The codes of the API, by status; some statuses have finer ones.
CODES = {
    400: "invalid_request",
    403: "denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    422: "invalid",
    429: "full",
    431: "headers_too_large",
    500: "internal",
    503: "unavailable",
    504: "timeout",
    507: "no_room",
}


class HttpError(Exception):
    """An answer that is an error.

    status: HTTP's.  code: None for the status's own.  retry_after: seconds, or None.
    """

    def __init__(
        self,
        status: int,
        message: str,
        hint: "str | None" = None,
        *,
        code: "str | None" = None,
        retry_after: "int | None" = None,
        allow: "str | None" = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = CODES[status] if code is None else code
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.allow = allow

    def response(self) -> "Response":
        """The answer."""
        from .messages import Response

        body = wire.ErrorBody(code=self.code, message=self.message, hint=self.hint)
        headers: list[tuple[str, str]] = []
        if self.retry_after is not None:
            headers.append(("retry-after", str(self.retry_after)))
        if self.allow is not None:
            headers.append(("allow", self.allow))
        encoded = msgspec.json.encode(wire.Error(error=body))
        return Response(self.status, encoded, headers=tuple(headers))


def translate(error: WasisupError) -> HttpError:
    """What one of wasisup's own errors is as an answer, before there is a run."""
    if isinstance(error, Denied):
        return HttpError(403, error.message, error.hint)
    if isinstance(error, ModuleNotFound):
        return HttpError(404, error.message, error.hint, code="module_not_found")
    if isinstance(error, InvalidModule):
        return HttpError(422, error.message, error.hint, code="invalid_module")
    if isinstance(error, UsageError):
        return HttpError(422, error.message, error.hint)
    status = 504 if isinstance(error, OpenerTimeout) else 503
    return HttpError(status, error.message, error.hint)
