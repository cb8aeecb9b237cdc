"""From probabilities to decisions: pure functions on arrays, no disk, no torch.

Arrays go in, frozen dataclasses come out. Class indexes follow the class list that is passed.
"""
