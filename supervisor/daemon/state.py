"""The daemon's parts, put together."""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import SetupError
from .admission import Admission
from .catalogue import Catalogue
from .config import Config
from .events import Hub
from .intake import Intake
from .metrics import Metrics
from .modules import ModuleStore
from .opener import Openers
from .peers import Budgets
from .records import Records
from .runs import Runs

if TYPE_CHECKING:
    from ..cgroups import Delegation

# Held in memory for one user: bodies of requests, modules to be compiled, answers not yet read.
_BYTES_OF_ONE_USER = 1 << 30


class State:
    """What the API acts on.

    core: core.Core, or what stands in for it.  delegation: where runs get control groups, or None.
    """

    def __init__(self, config: Config, core: Any, delegation: "Delegation | None") -> None:
        self.config = config
        self.core = core
        self.delegation = delegation
        self.started = datetime.now(UTC)
        self.stopping = False
        self.log_folder = f"{config.state}/logs"
        _make_private(config.state)
        _make_private(self.log_folder)
        self.records = Records(f"{config.state}/records.db")
        self.catalogue = Catalogue()
        self.metrics = Metrics()
        self.events = Hub()
        limits = config.limits
        self.admission = Admission(limits.runs, limits.queued, limits.memory)
        self.openers = Openers()
        self.budgets = Budgets(_BYTES_OF_ONE_USER)
        self.modules = ModuleStore(
            self.records,
            core,
            self.openers,
            self.budgets,
            folder=f"{config.state}/modules",
            compiles=limits.compiles,
        )
        self.intake = Intake(
            self.openers,
            self.modules,
            self.catalogue,
            budgets=self.budgets,
            kept_output=limits.kept_output,
            cache_roots=core.cache_roots(),
        )
        self.runs = Runs(
            core=core,
            records=self.records,
            admission=self.admission,
            modules=self.modules,
            events=self.events,
            metrics=self.metrics,
            folder=self.log_folder,
            delegation=delegation,
        )
        self.metrics.watch(
            running=lambda: self.admission.running,
            queued=lambda: self.admission.queued,
            memory_promised=lambda: self.admission.promised,
        )

    def reconfigure(self, config: Config) -> None:
        """Takes a new configuration; what cannot change in a running daemon stays."""
        limits = config.limits
        self.config = config
        for ticket in self.admission.reconfigure(limits.runs, limits.queued, limits.memory):
            self.runs.drop(ticket)
        self.modules.reconfigure(limits.compiles)
        self.intake.kept_output = limits.kept_output

    async def close(self) -> None:
        """Closes what is open; no run is alive any more."""
        self.events.close()
        self.runs.catch_up()
        self.intake.close()
        await self.openers.close()
        await self.core.close()
        self.records.close()


def _make_private(folder: str) -> None:
    """Makes a directory that is this user's alone.  Raises SetupError."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        info = os.stat(folder)
    except OSError as error:
        raise SetupError(
            f"{folder} cannot be made: {error.strerror}",
            "the key `state` of the configuration names another place",
            step="state",
            errno=error.errno or 0,
        ) from error
    if info.st_uid != os.geteuid():
        raise SetupError(
            f"{folder} belongs to somebody else (uid {info.st_uid})",
            "a daemon's state is its user's own",
            step="state",
        )
    if info.st_mode & 0o077:
        os.chmod(folder, 0o700)
