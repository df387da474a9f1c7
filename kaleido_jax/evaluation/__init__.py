"""What --mode=evaluate is made of: what is drawn, seen, scored and reported."""
