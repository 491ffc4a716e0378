"""Trials on the machines of a Ray cluster, of which the searching process is a part.

Ray starts the jobs and notices what dies; what is decided here is how stages travel. Every node keeps the stages that
it has seen in a folder of its own. One actor, beside the searching process, reads and writes the stages of the run
folder: a node that needs one asks it by the stage's name, which is a hash of all that it depends on, and either gets
its files through Ray's object store, or makes it and hands it over, or waits for the node that is just making it. So
the run folder holds all that was ever finished, whatever becomes of the nodes or of the search.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune._tensorflow import ONEDNN, WITHOUT_ONEDNN
from edgeprune.errors import EdgepruneError, MissingError, UsageError
from edgeprune.pipeline import pack_stage, unpack_stage
from edgeprune.searching import trials
from edgeprune.searching.executors import Job, Outcome, Processes

if TYPE_CHECKING:
    from types import ModuleType

logger = logging.getLogger(__name__)
# A job whose process or node died so many times is at fault itself.
ATTEMPTS = 4
# A process of a node is replaced after so many jobs: not all that TensorFlow takes does it give back.
_JOBS_OF_PROCESS = 32
# How often a node that waits for another one's stage asks for it.
_POLL_S = 0.5
# Stages that stay in the object store; others are read from the run folder again.
_KEPT = 64
# Trials take one processor each. What is said of TensorFlow here holds there, too.
_THREADS = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_INHERITED = (ONEDNN, WITHOUT_ONEDNN, "TF_CPP_MIN_LOG_LEVEL")


def import_ray() -> ModuleType:
    """Ray.

    Raises:
        MissingError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without it, Ray warns about a default that will change for GPUs, which trials do not use.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingError(
            "A search on a cluster needs Ray, which is not installed.", fix="pip install 'edgeprune[ray]'"
        ) from None
    return ray


class RayCluster:
    """Runs jobs on a Ray cluster, one on each processor. One whose process or node dies is begun again.

    Args:
        address: of the cluster's head (``"10.0.0.1:6379"``, or ``"auto"`` on one of its machines); ``"local"``: a
            cluster that consists of this machine and ends with the search. A connection that this process has to a
            cluster is used as it is.
        folder: where the finished stages are kept.
        most: how many jobs at a time; None: as many as the cluster has processors, those included that join later.
        note: hears of what died.

    Raises:
        MissingError: Ray is not installed, or there is no such cluster.
        UsageError: an address of Ray's client, which is outside of the cluster.
    """

    def __init__(self, address: str, folder: Path, most: int | None, note: Callable[[str], None]):
        self._ray = import_ray()
        self._most, self._note = most, note
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _connect(self._ray, address)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._run = self._ray.remote(
            num_cpus=1,
            max_retries=0,
            max_calls=_JOBS_OF_PROCESS,
            runtime_env={"env_vars": {**inherited, **_THREADS}},
        )(_run)
        self._stages = (
            self._ray.remote(_Stages)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=self._on(self._here()))
            .remote(str(folder))
        )
        self._name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        self._local = Processes(1)
        self._local_jobs = 0
        self._identity: dict[str, Any] | None = None
        self._under_way: dict[Any, Job] = {}
        self._attempts: collections.Counter[int] = collections.Counter()
        self._closed = False

    @property
    def jobs(self) -> int:
        """How many jobs the cluster takes at the moment."""
        processors = max(1, int(self._ray.cluster_resources().get("CPU", 0)))
        return processors if self._most is None else min(processors, self._most)

    def submit(self, job: Job) -> None:
        if job.here:
            self._local_jobs += 1
            self._local.submit(job)
            return
        if self._identity is None and isinstance(job.arguments[0], trials.Setup):
            self._local.submit(Job(-1, trials.identity, (job.arguments[0],)))
            outcome = self._local.next()
            assert outcome is not None
            if outcome.error is not None:
                raise outcome.error
            self._identity = outcome.value
        self._begin(job)

    def next(self, timeout_s: float | None = None) -> Outcome | None:
        """As :meth:`edgeprune.searching.executors.Executor.next`.

        Raises:
            UsageError: a node has other data, another model or other versions than this machine.
            MissingError: a node cannot run edgeprune.
        """
        if self._local_jobs:
            outcome = self._local.next(timeout_s)
            self._local_jobs -= outcome is not None
            return outcome
        deadline = None if timeout_s is None else time.monotonic() + max(timeout_s, 0)
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            done, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=left)
            if not done:
                return None
            if outcome := self._ended(done[0]):
                return outcome

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._local.close()
        if not self._ray.is_initialized():
            return
        for reference in self._under_way:
            self._ray.cancel(reference, force=True)
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._clean()
        self._ray.kill(self._stages)
        if self._ours:
            self._ray.shutdown()

    def _begin(self, job: Job) -> None:
        self._attempts[job.number] += 1
        reference = self._run.remote(job, os.getcwd(), self._name, self._stages, self._identity)
        self._under_way[reference] = job

    def _ended(self, reference: Any) -> Outcome | None:
        """The outcome of a job that has ended; None if it was begun again."""
        job, errors = self._under_way.pop(reference), self._ray.exceptions
        try:
            kind, content = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise MissingError(
                f"A node of the cluster cannot run edgeprune: {str(error).strip().splitlines()[-1]}",
                expected="the same edgeprune, with the same packages, on every node.",
            ) from None
        except errors.RayError as error:
            # What it was making is for the next one who needs it; it may be the only processor that is left.
            self._ray.get(self._stages.release.remote(reference.task_id().hex()))
            why = f"the process or the node of a trial died ({type(error).__name__})"
            if self._attempts[job.number] < ATTEMPTS:
                self._note(f"{why}; the trial is begun again")
                self._begin(job)
                return None
            return Outcome(job.number, error=EdgepruneError(f"{why}, {ATTEMPTS} times.".capitalize()))
        if kind == "unfit":
            raise content
        return Outcome(job.number, content) if kind == "result" else Outcome(job.number, error=content)

    def _here(self) -> str:
        return str(self._ray.get_runtime_context().get_node_id())

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)

    def _clean(self) -> None:
        """Remove the folders of stages on the nodes; those of the run folder stay."""
        clean = self._ray.remote(num_cpus=0, max_retries=0)(_clean)
        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        removed = [clean.options(scheduling_strategy=self._on(node)).remote(self._name) for node in nodes]
        self._ray.wait(removed, num_returns=len(removed), timeout=10)


def _connect(ray: ModuleType, address: str) -> None:
    if address.startswith("ray://"):
        raise UsageError(
            f"The address {address} is one of Ray's client, which stands outside of the cluster.",
            expected="HOST:PORT of the head, or auto, on a machine of the cluster: the run folder is there.",
        )
    options = {"include_dashboard": False} if address == "local" else {}
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingError(
            f"The Ray cluster {address} cannot be reached: {said[0]}",
            fix="start one with `ray start --head`, join it on every other machine with "
            "`ray start --address=HOST:6379`, and search on one of them; or use --ray local.",
        ) from None
    _quiet()


def _quiet() -> None:
    """Keep what Ray says of dead nodes off standard output, where --json prints; Ray has no option for that.

    In a release without the function that is replaced here, Ray speaks again, and nothing else is different.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda data, **_: logger.debug("%s", data)


# -- beside the searching process ---------------------------------------------------------------------------------


class _Stages:
    """The stages of the run folder, and who is making the ones that are missing."""

    def __init__(self, folder: str):
        self._folder = Path(folder)
        self._makers: dict[str, str] = {}
        self._kept: collections.OrderedDict[str, Any] = collections.OrderedDict()

    def claim(self, name: str, maker: str) -> tuple[Literal["found", "yours", "wait"], list[Any]]:
        """A finished stage, as a reference to its files; or whether ``maker`` is the one to make it."""
        import ray

        if name in self._kept:
            self._kept.move_to_end(name)
            return "found", [self._kept[name]]
        if name not in self._makers and (files := pack_stage(self._folder / name)) is not None:
            self._keep(name, ray.put(files))
            return "found", [self._kept[name]]
        return ("yours" if self._makers.setdefault(name, maker) == maker else "wait"), []

    def offer(self, name: str, files: dict[str, bytes]) -> None:
        """Write a stage that was made."""
        unpack_stage(files, self._folder / name)
        self._makers.pop(name, None)

    def release(self, maker: str) -> None:
        """Somebody else may make what ``maker`` has not finished."""
        self._makers = {name: other for name, other in self._makers.items() if other != maker}

    def _keep(self, name: str, reference: Any) -> None:
        self._kept[name] = reference
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


# -- on the nodes -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Travel:
    """Brings a stage to this node, or hands over what was made here (:class:`edgeprune.pipeline.Run`)."""

    stages: Any

    @contextlib.contextmanager
    def __call__(self, home: Path) -> Iterator[None]:
        import ray

        maker = ray.get_runtime_context().get_task_id()
        while True:
            answer, content = ray.get(self.stages.claim.remote(home.name, maker))
            if answer == "found":
                unpack_stage(ray.get(content[0]), home)
                yield
                return
            if answer == "yours":
                break
            time.sleep(_POLL_S)
        try:
            yield
            files = pack_stage(home)
            assert files is not None
            ray.get(self.stages.offer.remote(home.name, files))
        finally:
            ray.get(self.stages.release.remote(maker))


def _run(job: Job, folder: str, name: str, stages: Any, identity: dict[str, Any] | None) -> tuple[str, Any]:
    """Run a job on this node.

    Returns:
        ``("result", value)``, ``("error", exception)``, or ``("unfit", exception)`` if no job can be run here.
    """
    from edgeprune._tensorflow import import_tf
    from edgeprune.workers.child import portable

    with contextlib.suppress(OSError):  # relative paths mean the same here, if there is such a folder
        os.chdir(folder)
    arguments = job.arguments
    try:
        if isinstance(arguments[0], trials.Setup):
            import_tf()
            setup = dataclasses.replace(arguments[0], stages=_node_folder(name), exchange=_Travel(stages))
            arguments = (setup, *arguments[1:])
            if error := _unfit(setup, identity):
                return "unfit", error
        return "result", job.function(*arguments)
    except Exception as error:
        return "error", portable(error)


def _unfit(setup: trials.Setup, identity: dict[str, Any] | None) -> EdgepruneError | None:
    """Why nothing can be built here that counts."""
    import platform

    node = platform.node()
    try:
        found = trials.identity(setup)
    except EdgepruneError as error:
        return UsageError(
            f"The node {node} cannot open what the search is about: {error.what}",
            expected="the model and the data under the same paths on every node, by a shared folder or as copies.",
        )
    other = [what for what, value in found.items() if identity is not None and identity[what] != value]
    if not other:
        return None
    return UsageError(
        f"The node {node} differs from the machine of the search in: {', '.join(other)}.",
        expected="the same edgeprune, packages, model and data on every node.",
    )


def _node_folder(name: str) -> Path:
    """Where this node keeps stages; the user's own."""
    import ray

    own = Path(tempfile.gettempdir()) / f"edgeprune-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():
        raise UsageError(f"The folder {own} belongs to somebody else.", fix="remove it, or set TMPDIR on that node.")
    return own / f"{name}-{ray.get_runtime_context().get_node_id()[:16]}"


def _clean(name: str) -> None:
    shutil.rmtree(_node_folder(name), ignore_errors=True)
