"""What stands in compose.yaml and deploy/, checked and run natively.

`compose-spec.json` is the schema of the Compose Specification, as of compose-go 2.16.2: Copyright 2020 The Compose
Specification Authors, Apache License 2.0.
"""
