"""The compile cache for those who keep it up: `wasisup cache` and `wasisup doctor`.

With `embedded` the door to `wasisup.runtime`; apart from it, since no run needs this.
"""

from ..runtime.cache import ArtifactCache


def open_cache() -> ArtifactCache:
    """The user's cache; the caller closes it.

    Nothing is opened yet: its methods raise CacheError when the directory cannot be used.
    """
    return ArtifactCache()
