"""From what the supervisor says of runs (model) to what the API says (wire)."""

import os
import secrets
from datetime import UTC, datetime

from ...policies.network import HOST, format_net
from .. import wire
from ..errors import WasisupError
from ..model import Outcome, Quotas, RunRequest
from .intake import Prepared


def outcome_of(outcome: Outcome) -> wire.Outcome:
    """How a run ended."""
    usage = outcome.usage
    return wire.Outcome(
        reason=outcome.reason,
        status=outcome.status,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        trap=outcome.trap,
        syscall=outcome.syscall,
        message=outcome.message,
        usage=wire.Usage(**{name: getattr(usage, name) for name in usage.__slots__}),
        denials=[
            wire.Denial(kind=denial.kind, count=denial.count, errno=denial.errno, path=denial.path)
            for denial in outcome.denials
        ],
        walls=outcome.walls,
        timings=outcome.timings,
    )


def quota_values(quotas: Quotas) -> wire.QuotaValues:
    """The quotas in force."""
    return wire.QuotaValues(**{name: getattr(quotas, name) for name in quotas.__slots__})


def granted(request: RunRequest) -> wire.Grants:
    """What a request grants; variables by name only."""
    return wire.Grants(
        dirs=[
            wire.GrantedDir(
                host=_text(grant.host), guest=_text(grant.guest), read_only=grant.read_only
            )
            for grant in request.dirs
        ],
        tmpfs=[
            wire.GrantedTmpfs(guest=_text(grant.guest), size=grant.size) for grant in request.tmpfs
        ],
        env=[_text(name) for name, _ in request.env],
        listens=[
            f"[{grant.host}]:{grant.port}" if ":" in grant.host else f"{grant.host}:{grant.port}"
            for grant in request.listens
        ],
        net=[HOST] if request.net_host else [format_net(grant) for grant in request.net],
        clock_resolution=request.clock_resolution,
    )


def _text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def outcome_of_error(error: WasisupError) -> wire.Outcome:
    """How a run ended that could not be started."""
    return wire.Outcome(
        reason=error.reason,
        status=error.exit_status,
        message=error.message,
        hint=error.hint,
        step=getattr(error, "step", "") or None,
        errno=getattr(error, "errno", 0) or None,
        wall=getattr(error, "wall", None),
    )


def record_of(prepared: Prepared) -> wire.Run:
    """The record of a run that is about to be admitted."""
    spec, request, caller = prepared.spec, prepared.request, prepared.caller
    return wire.Run(
        id=secrets.token_hex(8),
        state="queued",
        uid=caller.uid,
        gid=caller.gid,
        policy=spec.policy,
        module=_readable(prepared.module.name),
        digest=prepared.module.digest,
        args=[_readable(arg) for arg in request.args],
        engine=request.engine,
        invoke=request.invoke,
        labels=spec.labels,
        quotas=quota_values(request.quotas),
        grants=granted(request),
        allow_missing=sorted(request.allow_missing),
        created=datetime.now(UTC),
    )


def _readable(text: str | bytes) -> str:
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogateescape")
    return text.decode("utf-8", "backslashreplace")
