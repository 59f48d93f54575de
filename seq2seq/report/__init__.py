"""What a person sees of runs.

    run_page    one run: the table on the screen, curve.png, README.md and history.json in its folder
    collect     the run folders below a directory: finished, failed, unfinished
    methods     runs that differ only in their seed as one group; groups of one method on several tasks as one row
    tables      the numbers of methods and runs as data frames, and as cells to print
    plots       metric against parameters, learning curves, low-resource curves, memory by layer
    page        report.md, index.html, results.csv, runs.csv

``python -m seq2seq.report outputs/`` makes the report of all runs below outputs/.
"""

from seq2seq.report.page import write_comparison
from seq2seq.report.run_page import draw_curve, result_rows, result_table, write_report

__all__ = ["draw_curve", "result_rows", "result_table", "write_comparison", "write_report"]
