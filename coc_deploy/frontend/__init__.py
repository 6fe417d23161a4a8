"""The front end: a network of torch as a canonical body."""
