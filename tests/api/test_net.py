"""Grants of the network in requests: the record, who may ask for them, and what a module has."""

from __future__ import annotations

import socket

import pytest


def test_the_record_says_what_was_granted(api):
    """Each grant as it is written; a module of preview 1 runs all the same."""
    grants = ["tcp:Example.org:443", "udp:[2001:db8::/32]:1-65535", "listen:udp:127.0.0.1:53"]
    run = api.run("hello", net=grants)
    assert run["outcome"]["status"] == 0
    written = ["tcp:example.org:443", "udp:[2001:db8::/32]:*", "listen:udp:127.0.0.1:53"]
    assert run["grants"]["net"] == api.get(f"/v1/runs/{run['id']}")["grants"]["net"] == written
    assert api.run("hello", net=["tcp:example.org:443", "host"])["grants"]["net"] == ["host"]
    assert api.run("hello")["grants"]["net"] == []


def test_a_slip_says_where_it_stands(api):
    """The place in the request, and the right form."""
    body = api.request("hello", net=["tcp:x:80", "x:80"])
    error = api.ask("POST", "/v1/runs", body).refused(422, "tcp:x:80, or udp:x:80")
    assert error["message"].startswith("net[1]: ")


def test_a_policy_without_network(api):
    """`net = false` refuses grants, and listening sockets that come along."""
    body = api.request("hello", net=["tcp:x:80"], policy="pure")
    api.ask("POST", "/v1/runs", body).refused(422, "net[0]: policy 'pure' allows none")
    with socket.create_server(("127.0.0.1", 0)) as server:
        body = api.request("hello", listens=[{"fd": 0, "name": "x"}], policy="pure")
        api.ask("POST", "/v1/runs", body, fds=[server.fileno()]).refused(422, "no socket")


def test_a_modules_socket_comes_along(api):
    """The daemon opens no socket with its own rights for a caller."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    outcome = api.run("hello", net=[f"listen:tcp:127.0.0.1:{port}"])["outcome"]
    assert (outcome["reason"], outcome["step"]) == ("setup", "listen")
    assert "cannot listen by itself" in outcome["message"]
    assert outcome["hint"] == "open the socket, and send it with the request: listens"


@pytest.mark.parametrize("right", ["policies", "none"])
def test_an_administrator_says_who(make_daemon, right):
    """Refused before anything is admitted, and /v1/info says it beforehand."""
    api = make_daemon({"default": {"net": right}}).api()
    assert api.get("/v1/info")["caller"]["net"] == right
    for grants in (["tcp:8.8.8.8:53"], ["listen:tcp:127.0.0.1:80"], ["host"]):
        body = api.request("hello", net=grants)
        error = api.ask("POST", "/v1/runs", body).refused(403, "you may not ask for the network")
        assert error["code"] == "denied"
        assert error["hint"]
    assert api.get("/v1/runs")["runs"] == []
    assert api.run("hello")["outcome"]["status"] == 0
