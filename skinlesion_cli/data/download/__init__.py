"""Downloading datasets over HTTP: single requests, whole files with resumption and verification,
the files of ISIC 2018.

A file gets its final name only when it is complete and verified.
"""
