"""`skinlesion train`: from a dataset and a recipe to a checkpoint and its predictions on held-out images.

`stage.run` creates one `job.Job` per network (one per fold); `fitting` trains it, `predicting` stores its
predictions, `planning` estimates the duration for `--dry-run`.
"""
