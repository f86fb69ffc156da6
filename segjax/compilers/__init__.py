"""Chips, devices to compile for, and what programs take of them: operations, bytes, collectives."""
