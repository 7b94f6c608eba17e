"""Files of earlier versions: the only place that understands them.

``names`` knows what fields, files and objects were called, ``artefacts`` what may be kept of what was made, and what runs and plans did
not record yet.
"""
