"""One process owns a run folder: a lock beside it, held from the first look at the folder until the run has ended.

    with owned(Path("outputs/rte")): ...            outputs/.rte.lock names the process while the body runs

The system releases the lock when its process ends, however it ends. It works on local disks and on network disks with
file locks (NFS, Lustre mounted with flock); on a disk without them a warning says that two processes are not told
apart. Of the processes of one run, as torchrun starts them, the main one takes it.
"""

import contextlib
import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from adapters import ConfigurationError

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a disk without file locks answers."""


class FolderInUseError(ConfigurationError):
    """Another process owns the run folder."""


@contextlib.contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Own a run folder, which may not exist yet, during the body; may be nested within a process.

    Raises:
        FolderInUseError: another process owns it.
        OSError: the folder above cannot be written.
    """
    path = lock_path(directory)
    lock = FileLock(path, blocking=False, is_singleton=True, thread_local=False, fallback_to_soft=False)
    if lock.is_locked:
        yield
        return
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        raise FolderInUseError(sentence_of_use(directory)) from None
    except (NotImplementedError, OSError) as error:
        if not isinstance(error, NotImplementedError) and error.errno not in NO_LOCKS:
            raise
        logger.warning("No file locks on this disk (%s): start each run of %s once only.", error, directory)
        yield
        return
    try:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        path.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}))
        yield
    finally:
        path.unlink(missing_ok=True)  # while locked: a process that waits on this file then looks for a new one
        lock.release()
        for parent in missing:
            with contextlib.suppress(OSError):  # of a parent that is not empty
                parent.rmdir()


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of those that torchrun has started."""
    return int(os.environ.get("RANK", "0")) == 0


def lock_path(directory: Path) -> Path:
    """The lock file of a run folder: beside it, since ``overwrite`` moves the folder itself."""
    return directory.with_name(f".{directory.name}.lock")


def sentence_of_use(directory: Path) -> str:
    """The sentence about a run folder that another process owns."""
    owner = "another process"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(lock_path(directory).read_text())
        owner = f"process {told['process']} on {told['host']}, since {told['since']}"
    return (
        f"Key 'experiment_name' must name a run folder that no other process uses; got {directory}, which is used by "
        f"{owner}: wait until it has ended, or choose another name."
    )
