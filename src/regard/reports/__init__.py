"""One self-contained HTML page about a run or its scores."""

import sys
from types import ModuleType

from regard.reports.page import report


class _Callable(ModuleType):
    """Lets ``regard.report`` be both this package and the public function of that name."""

    __call__ = staticmethod(report)


sys.modules[__name__].__class__ = _Callable
