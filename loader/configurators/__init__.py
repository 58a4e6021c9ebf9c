"""Writing boot parameters that a VMM has made into guest memory.

As linux-loader's `configurator`: `BootParams` holds bytes and where they go, and one module per
way of booting (`linux`, `pvh`, `fdt`) has a `write_bootparams(params, memory)`. What the parameters
say is the caller's business; loader/protocols makes whole sets of them. All addresses are
guest-physical.

    params = BootParams.new(pvh.StartInfo(memmap_paddr=0x7000, memmap_entries=1), 0x6000)
    params.set_sections([pvh.MemmapEntry(0, memory.size, 1)], 0x7000)
    pvh.write_bootparams(params, memory)
"""

from bootproof.loader.configurators import fdt, linux, pvh
from bootproof.loader.configurators.params import BootParams

__all__ = ["BootParams", "fdt", "linux", "pvh"]
