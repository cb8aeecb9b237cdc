"""Training one network: the loop, losses, optimisation, mixing, several processes, signals, memory, saved
state.

`trainer.Trainer` is given batches and callbacks; it knows neither files nor the command line.
"""
