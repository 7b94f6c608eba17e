"""Studies: everything that `autoseg_run --total` does until one deadline, as a list of tasks and who carries them out.

`tasks` has the values that executors share, `timetable` plans the trainings of the time that is left, `halving` decides which
candidates can still win, `conductor` starts what comes next and plans again after each task, `local` runs commands on this machine,
`scaling` finds out whether two trainings at a time are quicker than one after the other, and `record` survives an interruption.
"""
