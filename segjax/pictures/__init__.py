"""Pictures and charts for people; every picture is RGB uint8 [H, W, 3]."""
