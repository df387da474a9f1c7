"""Several processes: they find each other, stop together and fail together.

Jax itself finds the others on SLURM, Open MPI, TPU pods and GKE; elsewhere
flags say who they are. Computing together, each waits for all: who is left
alone would wait without end, or be aborted by jax with a stack trace. So every
process holds a wire to process 0, which carries nothing but the bad news. One
that is killed lets go of it, one that fails says why, and the others end with a
sentence that names it.
"""

import contextlib
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import logging

# Its key-value store is how the processes learn of the wires; Orbax imports it
# too. The rest of `jax.distributed` is public.
from jax._src import distributed
from jax.experimental import multihost_utils

LOST = 76  # the exit code of who ends because another process did
PATIENCE = 30  # seconds without a heartbeat, until jax gives a process up
KEY, BYE = 'kaleido_jax/wires', 'bye'


@contextlib.contextmanager
def joined(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process: int | None = None,
  explain: Callable[[BaseException], str | None] = lambda error: None,
  exit_code: Callable[[BaseException], int] = lambda error: 1,
) -> Iterator[None]:
  """Joins the other processes of this run, if there are any, until the end.

  Before jax is used. An error inside ends this process and all others; what
  `explain` does not put in words is printed whole.
  """
  if not start(coordinator, num_processes, process) or jax.process_count() == 1:
    yield
    return
  if jax.default_backend() == 'cpu':
    # Only process 0 finds its programs there, and the collectives of CPUs wait
    # 30 s for one that still compiles, no longer.
    jax.config.update('jax_enable_compilation_cache', False)
  wires = Wires()
  try:
    yield
  except SystemExit:  # all of them stop here
    wires.tell(BYE)
    raise
  except BaseException as error:
    # Is it ours? What another process left behind comes as an error as well,
    # and the wire is about to tell.
    time.sleep(2)
    said = explain(error) or ''.join(traceback.format_exception(error))
    print(said, file=sys.stderr, flush=True)
    code = exit_code(error)
    # A mistake is everybody's, or launchers would repeat it.
    wires.tell(
      f'{_name()} failed: {type(error).__name__}: {error}',
      LOST if code == 1 else code,
    )
    # To leave politely is to wait for the others, who wait for us.
    os._exit(code)
  wires.tell(BYE)


def start(
  coordinator: str | None, num_processes: int | None, process: int | None
) -> bool:
  """Whether there is something to join: it is found, or stated in full."""
  given = coordinator, num_processes, process
  if given == (None, None, None):
    try:
      jax.distributed.initialize(heartbeat_timeout_seconds=PATIENCE)
    except ValueError as error:
      # What jax says when there is no cluster; a broken one it tells otherwise.
      if 'coordinator_address should be defined' not in str(error):
        raise
      return False
    return True
  if None in given:
    raise ValueError(
      f'--coordinator={coordinator} --num_processes={num_processes} '
      f'--process_id={process}: give all three, or none where a cluster tells.'
    )
  if num_processes == 1:
    return False
  jax.distributed.initialize(
    *given,
    cluster_detection_method='deactivate',
    heartbeat_timeout_seconds=PATIENCE,
  )
  return True


def first() -> bool:
  """Whether this process writes what is written once."""
  return jax.process_index() == 0


def agreed(number: int | None) -> int | None:
  """What process 0 has: file systems need not show all of them the same."""
  if jax.process_count() == 1:
    return number
  mine = np.int64(-1 if number is None else number)
  found = int(multihost_utils.broadcast_one_to_all(mine))
  return None if found < 0 else found


def whole(array: jax.Array) -> np.ndarray | jax.Array:
  """An array as each process can read it, wherever its parts are."""
  if array.is_fully_addressable:
    return array
  return multihost_utils.process_allgather(array, tiled=True)


class Told:
  """Whether somebody asked the run to stop: SIGTERM, as clusters send it.

  One process that is told is enough. Jax catches the signal then, and finds a
  step that none of them has passed.
  """

  def __init__(self):
    self._told = False
    self._together = jax.distributed.is_initialized()
    if not self._together:
      self._before = signal.signal(signal.SIGTERM, self._stop)

  def to_stop(self, step: int) -> bool:
    """To be asked after each step, by each process."""
    if self._together:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._told

  def close(self) -> None:
    if not self._together:
      signal.signal(signal.SIGTERM, self._before)

  def _stop(self, number, frame) -> None:
    del number, frame
    self._told = True


class Wires:
  """From every process to process 0, and what is heard on them.

  A line is the exit code of those who hear it, and a sentence about a process
  that failed; `bye` is the end of a run that went well. A closed wire without a
  line is a process that was killed.
  """

  def __init__(self):
    self._wires: list[socket.socket] = []
    self._leaving = False
    state = distributed.global_state
    host = state.coordinator_address.rpartition(':')[0].strip('[]')
    if first():
      token = secrets.token_hex(8)
      server = socket.create_server(('', 0), backlog=jax.process_count())
      port = server.getsockname()[1]
      said = f'{port} {token} {_name()}'
      state.client.key_value_set(KEY, said)
      _in_background(self._accept, server, token)
      return
    said = state.client.blocking_key_value_get(KEY, 60_000)
    port, token, name = said.split(' ', 2)
    try:
      wire = socket.create_connection((host, int(port)), timeout=PATIENCE)
    except OSError as error:
      logging.warning(
        'no wire to %s, port %s: %s. If a process is lost, jax will say so '
        'after %d s, by its number alone.',
        name,
        port,
        error,
        PATIENCE,
      )
      return
    wire.sendall(f'{token} {_name()}\n'.encode())
    _in_background(self._listen, wire, wire.makefile(), name)

  def tell(self, line: str, code: int = LOST) -> None:
    """Says a line to whoever is on a wire."""
    self._leaving = True  # what is heard from now on is heard no more
    if line != BYE:
      line = f'{code} {" ".join(line.split())}'
    for wire in list(self._wires):  # others take theirs off meanwhile
      with contextlib.suppress(OSError):
        wire.sendall(f'{line}\n'.encode())
    if line != BYE and first():
      time.sleep(0.5)  # to be read before jax aborts who has lost process 0

  def _accept(self, server: socket.socket, token: str) -> None:
    while True:
      wire, _ = server.accept()
      _in_background(self._greet, wire, token)

  def _greet(self, wire: socket.socket, token: str) -> None:
    wire.settimeout(PATIENCE)
    lines = wire.makefile()
    try:
      hello = lines.readline().strip()
    except OSError:
      hello = ''
    if hello.startswith(f'{token} '):
      self._listen(wire, lines, hello.partition(' ')[2])
    else:
      wire.close()  # a stranger

  def _listen(self, wire: socket.socket, lines, name: str) -> None:
    _notice_dead_hosts(wire)
    self._wires.append(wire)
    try:
      line = lines.readline().strip()
    except OSError:  # reset by the peer, which is as good as closed
      line = ''
    self._wires.remove(wire)
    if line == BYE or self._leaving:
      return
    # At once, and not through logging, whose lock others may hold: if it is
    # process 0 that is gone, jax aborts this one within milliseconds.
    code, _, said = line.partition(' ') if line else (LOST, '', '')
    said = said or f'{name} is gone: it was killed, or its machine was lost'
    os.write(2, f'{said}. {_name()} ends too.\n'.encode())
    self.tell(said, int(code))
    os._exit(int(code))


def _notice_dead_hosts(wire: socket.socket) -> None:
  """A machine that loses power closes nothing: 20 s of silence do."""
  wire.settimeout(None)
  wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  for option, value in (('IDLE', 5), ('INTVL', 5), ('CNT', 3)):
    if hasattr(socket, f'TCP_KEEP{option}'):  # not everywhere
      number = getattr(socket, f'TCP_KEEP{option}')
      wire.setsockopt(socket.IPPROTO_TCP, number, value)


def _in_background(work, *args) -> None:
  threading.Thread(target=work, args=args, daemon=True).start()


def _name() -> str:
  return (
    f'process {jax.process_index()} of {jax.process_count()} '
    f'({socket.gethostname()}, pid {os.getpid()})'
  )
