"""Pictures for people. RGB uint8 throughout."""
