"""What people look at: leaderboard tables, pictures of regions, the static site.

Belongs here: ranking, intervals, tables, plots, pages. Does not belong here: computing scores or segments.
"""
