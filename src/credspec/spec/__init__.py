"""The credential spec: the document, references to it, the files it lives in. No network."""
