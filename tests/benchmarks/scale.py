"""Seconds and peak memory of the core at a number of images, in a process of its own.

    python tests/benchmarks/scale.py boundary 100000000 10000            # labels in memory
    python tests/benchmarks/scale.py boundary 1000000000 10000 --folder /data/labels
    python tests/benchmarks/scale.py order 100000000 10000 --ranks 8

`boundary` is an epoch boundary (commit, fix of the empty classes) after an epoch in which most
images were labelled; `order` the share of one rank of the balanced order. Prints one line of JSON.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from uic_plugin import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank
from uic_plugin.pseudo_labels.computed_order import in_turn
from uic_plugin.pseudo_labels.sampler import MAX_SHUFFLED

_BLOCK = 1 << 22


def label_all(bank):
    """What the steps of an epoch do, but in blocks of neighbours: a tenth of the classes empty."""
    generator = torch.Generator().manual_seed(0)
    used = max(1, bank.num_classes * 9 // 10)
    for start in range(0, len(bank), _BLOCK):
        index = torch.arange(start, min(start + _BLOCK, len(bank)))
        bank.update(index, torch.randint(used, index.shape, generator=generator))


def read_in_blocks(sampler):
    started = time.perf_counter()
    find, step = sampler._finder(), sampler.num_replicas
    seconds = time.perf_counter() - started

    def read(first):
        end = min(first + _BLOCK * step, sampler.total_size)
        return len(find(np.arange(first, end, step, dtype=np.uint64)))

    share = sum(in_turn(read, range(0, sampler.total_size, _BLOCK * step)))
    return {"seconds_to_first": round(seconds, 2), "share": share}


def read_whole(sampler):
    return {"share": len(sampler.share())}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("boundary", "order"))
    parser.add_argument("images", type=int)
    parser.add_argument("classes", type=int)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--max-shuffled", type=int, default=MAX_SHUFFLED)
    given = parser.parse_args()
    place = {"storage": "mmap", "folder": given.folder} if given.folder else {}
    started = time.perf_counter()
    bank = PseudoLabelBank(given.images, given.classes, **place)
    processor = time.process_time()
    made = time.perf_counter() - started
    fixer = EmptyClassFixer(given.classes)
    if given.what == "boundary":
        label_all(bank)
        started, processor = time.perf_counter(), time.process_time()
        boundary = bank.commit(fixer)
        result = {"splits": boundary.num_splits, "seen": boundary.num_seen}
    else:
        bank.fix_empty_classes(fixer)
        started, processor = time.perf_counter(), time.process_time()
        sampler = ClassBalancedSampler(
            bank, seed=0, world_size=given.ranks, max_shuffled=given.max_shuffled
        )
        # a computed order as an epoch reads it: block by block, nothing kept
        read = read_in_blocks if sampler.is_computed else read_whole
        result = read(sampler)
    seconds = time.perf_counter() - started
    processor = time.process_time() - processor
    usage = resource.getrusage(resource.RUSAGE_SELF)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    numbers = {
        "what": given.what,
        "images": given.images,
        "classes": given.classes,
        "ranks": given.ranks,
        "storage": bank.storage,
        "seconds_made": round(made, 2),
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),  # of all threads
        "peak_gb": round(usage.ru_maxrss / 1e6, 2),
        # of that, not backed by a file, which the system can drop when memory is short
        "anonymous_gb": round(int(status["RssAnon"].split()[0]) / 1e6, 2),
        **result,
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
