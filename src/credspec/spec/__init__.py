"""The credential spec: the document, references to it, the files it lives in. No network.

No process of its own; the library that `credspec` exports: `document` and `validation` read, `lint`
and `fixes` report and repair, `kubernetes` and `conversions` convert, `spec_directory` decides
which files of the host are trusted.
"""
