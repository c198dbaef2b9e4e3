"""Repairs TVM in every process that has this folder on its path; only tests have it."""

import importlib.abc
import importlib.util
import sys


class _Repaired(importlib.abc.MetaPathFinder):
    """Runs the repairs when TVM has been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "tvm":
            return None
        sys.meta_path.remove(self)  # not to find itself; many look for TVM before it is imported
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            import hhb_fixes

            hhb_fixes.apply()

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Repaired())
