"""The protocol, without any input or output: bytes to meaning and back.

``frames`` cuts a stream into frames, ``messages`` gives each its type and fields, ``states`` says who may
say what when, ``preface`` is the plain line that opens a connection, ``names`` says what a name is.
Nothing here knows trio, files or a clock.
"""
