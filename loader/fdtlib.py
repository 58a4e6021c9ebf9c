"""The `fdt` package, without what compiling it complains of.

Its source has escape sequences that Python warns about when it is compiled, which is at the first
import on a machine; where warnings are errors, that import would fail.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import fdt

__all__ = ["fdt"]
