"""Models and files of other tools. None of them is imported: their formats are written down here."""
