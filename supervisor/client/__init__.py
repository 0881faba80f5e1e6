"""The SDK's side of the daemon: HTTP/1.1 on an AF_UNIX socket, with descriptors by SCM_RIGHTS.

    http      the protocol without I/O: generators that yield what to connect, send and receive
    failures  every error of the daemon and of the socket, as one of `errors`; the one place for it
    api       each request and what its answer is decoded to, as such generators too
    options   what a run may be given, and the request it makes
    sync      a driver with blocking sockets, and Client
    aio       a driver with asyncio, and AsyncClient
    pool      one module over many inputs

`http`, `failures` and the driver of `sync` import neither msgspec nor typing: they are on the way
of `wasisup run --socket`.
"""
