#!/usr/bin/env python3
"""Takes the schemas out of the OpenAPI v3 documents of a Kubernetes API server.

usage: select.py FOLDER    a folder with api__v1.json, apis__apps__v1.json, ... (`/` is `__`), as
                           `GET /openapi/v3/api/v1` and its like answer

Writes every schema once, one a line, by name: those of kinds into `schemas.json` beside this script, those of
`k8s.io/apimachinery` into that of the crate `machinery`. The paths of the documents are not kept: Holdfast makes
them from its table of resources.
"""
import json
import pathlib
import sys

# Named in the documents of each group with that group's own kinds beside `v1`'s; `openapi.rs` puts those in.
IN_EVERY_GROUP = ["DeleteOptions", "WatchEvent"]
MACHINERY = "io.k8s.apimachinery."
META = MACHINERY + "pkg.apis.meta.v1."


def main():
    source, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
    schemas = {}
    for document in sorted(source.glob("*.json")):
        components = json.loads(document.read_text()).get("components", {})
        for name, schema in components.get("schemas", {}).items():
            if name in [META + kind for kind in IN_EVERY_GROUP]:
                kinds = schema["x-kubernetes-group-version-kind"]
                schema["x-kubernetes-group-version-kind"] = [kind for kind in kinds if kind["group"] == ""]
            if schemas.setdefault(name, schema) != schema:
                sys.exit(f"{document}: {name} differs from that of another document")
    write(here / "schemas.json", {name: schemas[name] for name in schemas if not name.startswith(MACHINERY)})
    machinery = here / "../../machinery/schemas/schemas.json"
    write(machinery, {name: schemas[name] for name in schemas if name.startswith(MACHINERY)})


def write(path, schemas):
    lines = [f"{json.dumps(name)}:{json.dumps(schemas[name], separators=(',', ':'))}" for name in sorted(schemas)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
