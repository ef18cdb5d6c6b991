"""What is done with models and data: train, infer, evaluate, predict."""
