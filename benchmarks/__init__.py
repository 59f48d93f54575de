"""Speed and memory as ratios within one run; see docs/performance.md for what was measured.

    python -m benchmarks.contraction         a layer: every way, the plan that "auto" takes, and other libraries
    python -m benchmarks.training_step       T5-base built at random: whole steps, peak memory, merging, evaluation

Peers come with `pip install -e .[benchmark]`; one that is not installed is left out.
"""
