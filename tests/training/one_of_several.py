"""One process of several, as the tests start it; no test itself.

python one_of_several.py main PAUSE FLAGS...   imgrec.main, with PAUSE seconds before each batch
python one_of_several.py loop FLAGS...         steps of nothing but a sum over all devices, until
                                               told to stop; --raises names an exception for step 3
"""

import os
import sys
import time

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding, PartitionSpec

from imgrec import cli
from imgrec.errors import UserError
from imgrec.training import cluster, distributed


def loop(argv: list[str]) -> int:
    given = flags.FlagValues()
    cluster.define_flags(given)
    flags.DEFINE_string("raises", "", "UserError or ValueError", flag_values=given)
    flags.DEFINE_integer("stride", 1, "steps of a call", flag_values=given)
    cli.read_flags(given, argv)
    job = cluster.find(
        os.environ,
        coordinator=given.coordinator,
        processes=given.processes,
        process=given.process,
    )
    with distributed.joined(job, start_timeout=given.start_timeout, lost_after=given.lost_after):
        assert distributed.agreed(f"word of {job.process}") == "word of 0"
        assert distributed.everyone(job.process) == list(range(job.processes))
        mesh = jax.make_mesh((jax.device_count(),), ("d",))
        rows = np.ones(jax.local_device_count(), np.float32)
        ones = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("d")), rows)
        total = jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, PartitionSpec()))
        with distributed.stop_request() as stop:
            step = 0
            while not stop.reached(step):
                assert float(total(ones)) == jax.device_count()
                step += given.stride
                print("step", step, flush=True)
                if given.raises and step == 3:
                    kind = {"UserError": UserError, "ValueError": ValueError}[given.raises]
                    raise kind("this image is not one")
                time.sleep(0.02)
        print(f"stopped by {stop.received} at {step}", flush=True)
    return 75


def main(argv: list[str]) -> int:
    from imgrec import main
    from imgrec.training import feed, resident

    pause, *rest = argv[1:]
    for kind in (feed.DeviceFeed, resident.ResidentFeed):
        kind.take_steps = _slow(kind.take_steps, float(pause))
    return main.main([argv[0], *rest])


def _slow(take, pause):
    def slow(self, steps):
        time.sleep(pause)
        return take(self, steps)

    return slow


if __name__ == "__main__":
    verb = {"main": main, "loop": loop}[sys.argv.pop(1)]
    cli.run(verb)
