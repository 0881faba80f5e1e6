"""The policies that a daemon offers: read at its start and at a reload, not at every run."""

import os
from collections.abc import Mapping
from typing import Any

from ...policies import policy as policies
from ...policies.build import build
from ...policies.policy import Policy
from .. import wire
from ..errors import UsageError


class Catalogue:
    """Named policies, each as it was read or with why it cannot be used.

    One that fails at a reload stays as it was: `problems` has the words.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._policies: dict[str, Policy] = {}
        self._broken: dict[str, tuple[str, UsageError]] = {}
        self.problems: list[str] = []
        self.reload()

    def reload(self) -> None:
        """Reads every file again; those that are gone are gone, those that are broken stay."""
        before = self._policies
        self._policies, self._broken, self.problems = {}, {}, []
        for name, path in policies.names(self._environ).items():
            try:
                policy = policies.load(name, self._environ)
                _check(policy)
            except UsageError as error:
                self.problems.append(error.message)
                if name in before:
                    self._policies[name] = before[name]
                else:
                    self._broken[name] = (path, error)
            else:
                self._policies[name] = policy

    def get(self, name: str) -> Policy | None:
        """The policy of that name; None when there is none.  Raises UsageError for a broken one."""
        if name in self._broken:
            raise self._broken[name][1]
        return self._policies.get(name)

    def names(self) -> list[str]:
        """The names of those that can be used."""
        return sorted(self._policies)

    def describe(self, allows: Any) -> list[wire.PolicyInfo]:
        """What is there for a caller; allows: name -> bool."""
        found = [
            wire.PolicyInfo(
                name=name,
                description=policy.description,
                path=policy.path,
                settings=_settings(policy),
            )
            for name, policy in self._policies.items()
            if allows(name)
        ]
        found += [
            wire.PolicyInfo(name=name, path=path, error=error.message)
            for name, (path, error) in self._broken.items()
            if allows(name)
        ]
        return sorted(found, key=lambda one: one.name)


def _settings(policy: Policy) -> dict[str, Any]:
    from ...policies.settings import SETTINGS

    shown: dict[str, Any] = {}
    for key, given in policy.values.items():
        texts = [one.text for one in given]
        shown[key] = texts if SETTINGS[key].is_list else texts[-1]
    return {**shown, **dict.fromkeys(policy.forbidden, False)}


def _check(policy: Policy) -> None:
    """Raises UsageError for what a run would refuse, and for what means nothing to a daemon."""
    plan = build("module.wasm", (), {}, policy, {}, look=False)
    for grant in plan.request.dirs:
        if not os.path.isabs(grant.host):
            raise UsageError(
                f"{policy.path}: dir: {grant.host!r} is relative, and a daemon is nowhere",
                "write the whole path; `wasisup run` may use this policy without a daemon",
            )
