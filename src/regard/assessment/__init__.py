"""How accurate a class map is: a probability sample of its pixels, and what their labels say of the whole map."""
