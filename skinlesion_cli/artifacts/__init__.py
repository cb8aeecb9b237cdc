"""What lies on disk: one class per kind of artifact, with `load` and `save` over one base.

An artifact is a JSON envelope (`envelope`) and the payload files that it names: tensors in safetensors,
tables in CSV, never pickle. `base.StoredArtifact` reads and verifies it: regular files inside their own
folder only (`reading`), hashes, kind, schema version, class order, then the body against the kind's pydantic
schema, before any of it is used. Names that earlier versions wrote are translated in one place (`legacy`).

    Manifest -> Split -> Checkpoint, Predictions -> Ensemble -> Calibration -> Bundle

A `Bundle` is all that prediction needs; `workspace` knows where each artifact lies. Tables of results have a
format of their own (`prediction_file`); tables that people bring are read by `user_tables`,
`external_tables`, `external_truth` and `external_predictions`.
"""
