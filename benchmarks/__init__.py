"""Benchmarks of speed and memory, as ratios within one run; see docs/performance.md for results.

    python -m benchmarks.contraction         one layer: every strategy, the plan of "auto", and other libraries
    python -m benchmarks.training_step       T5-base with random weights: training steps, memory, merging, evaluation
    python -m benchmarks.factorized          factorized linears: decoding, prefill, training steps, memory
    python -m benchmarks.gauge               training in different gauges of a tensor train
    python -m benchmarks.swipe               swipe typing: decoding by beam width, lexicon and pruning

`pip install -e '.[benchmark]'` installs the other libraries; those that are not installed are skipped.
"""
