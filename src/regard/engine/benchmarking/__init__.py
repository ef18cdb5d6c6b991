"""What attention, models and their parts cost, beside the textbook forms."""
