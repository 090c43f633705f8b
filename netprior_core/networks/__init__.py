"""Networks that serve as image priors, as plain ``torch.nn.Module`` classes. They know nothing of operators or methods."""
