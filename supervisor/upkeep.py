"""The compile cache for those who keep it up: `wasisup cache` and `wasisup doctor`.

With `embedded` the door to `wasisup.runtime`; apart from it, since no run needs this.
"""

from ..runtime.cache import ArtifactCache
from .errors import WasisupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..runtime.describe import Export, Import, World


def open_cache() -> ArtifactCache:
    """The user's cache; the caller closes it.

    Nothing is opened yet: its methods raise CacheError when the directory cannot be used.
    """
    return ArtifactCache()


def stored_description(
    digest: str, engine: str, *, fuel: bool
) -> "list[World | Import | Export] | None":
    """The imports and exports of a module that was compiled before, None when they are not there.

    digest: its SHA-256 in hex.
    """
    from ..runtime.describe import decode
    from ..runtime.engine import engine_key

    key = engine_key(engine, fuel=fuel)
    try:
        with open_cache() as cache:
            raw = cache.read_file(f"artifacts/{key}/{digest}.desc")
        return None if raw is None else decode(raw)
    except WasisupError:
        return None
