"""Photographs: image files of the user, and the files that prediction writes of them."""
