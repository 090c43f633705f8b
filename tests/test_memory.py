"""Freed buffers stay for the next iteration."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, threading
{imported}
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    for i in range(20):
        if i == 10:
            work.before = faults()
        a = torch.zeros(4_000_000); b = torch.zeros(12_000_000); del a, b

thread = threading.Thread(target=work); thread.start(); thread.join()
print((faults() - work.before) // 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_an_iteration_faults_no_pages_in_again() -> None:
    def measured(imported: str) -> int:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
        program = PROGRAM.format(imported=imported)
        return int(subprocess.run([sys.executable, "-c", program], env=kept, capture_output=True, text=True, check=True).stdout)

    assert measured("import netprior_core") < measured("") / 10
