"""One file for the sections of one subject: their numbers as sentences, tables and pictures."""
