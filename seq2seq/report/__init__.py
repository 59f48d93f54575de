"""Reports: the page of one run, and the comparison of many.

    run_page        one run: the table on the screen; curve.png, README.md and history.json in its folder
    collect         finds and reads the run folders below a directory: finished, failed, unfinished
    settings        configurations as flat settings that can be compared
    methods         aggregates runs over seeds into groups, and groups over tasks into methods
    task_names      which results are of one task, and what it is called
    names           what methods and their settings are called
    paired          differences between methods, seed by seed
    tables          methods and runs as data frames and as cells of text; ``latex`` writes them for a paper
    plots           metric against parameters, learning curves, low-resource curves, memory by layer
    parameter_axis  the axis of trainable parameters, zero included
    styles          the colour and marker of a method, the same in every report
    labels          places the labels of a plot without overlaps
    pareto_front    the methods that no other method beats in both cost and metric
    page            report.md, index.html, results.tex, results.csv, runs.csv

``python -m seq2seq.report outputs/`` writes the report of all runs below outputs/.
"""

from seq2seq.report.page import write_comparison
from seq2seq.report.run_page import draw_curve, result_rows, result_table, write_report

__all__ = ["draw_curve", "result_rows", "result_table", "write_comparison", "write_report"]
