"""The command line: one verb a file, one place that runs trio, one that writes for people or machines."""
