"""The leaderboard as tables, figures and a static site; the hierarchy explorer; the history of scores.

Belongs here: ranking, intervals, tables, plots, pages. Does not belong here: computing scores or segments, drawing regions (``drawing``).
"""
