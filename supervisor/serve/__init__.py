"""`wasisup serve`: an HTTP server that answers each request with a run of one module.

`http` reads requests and writes answers, `cgi` says what a request is for the guest and what its
output is for the client, `exchange` brings both together with a worker, `gate` says how many at
once.  Nothing outside imports it but the command that starts it.
"""
