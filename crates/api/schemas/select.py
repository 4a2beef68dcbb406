#!/usr/bin/env python3
"""Takes out of the OpenAPI v3 documents of a Kubernetes API server what Holdfast serves.

usage: select.py FOLDER    a folder with api__v1.json, apis__apps__v1.json, ... (`/` is `__`), as
                           `GET /openapi/v3/api/v1` and its like answer

Writes one document a group and version beside this script: paths of served resources alone, JSON and YAML
bodies alone (Holdfast speaks no protobuf), and the schemas that these reach. To serve more kinds, add their
plurals here and run it again.
"""
import json
import pathlib
import sys

SERVED = {
    "api/v1": ["namespaces", "nodes", "pods", "services", "endpoints", "configmaps", "secrets",
               "serviceaccounts", "events"],
    "apis/apps/v1": ["deployments", "replicasets"],
    "apis/coordination.k8s.io/v1": ["leases"],
    "apis/discovery.k8s.io/v1": ["endpointslices"],
    "apis/node.k8s.io/v1": ["runtimeclasses"],
}
# Subresources that Holdfast has; the resource itself is the empty one.
SUBRESOURCES = ["", "status", "scale", "binding", "eviction", "log", "finalize"]
ACTIONS = ["get", "put", "post", "patch", "delete"]
PREFIX = "#/components/schemas/"


def served(path, group_version, plurals):
    rest = path.removeprefix(f"/{group_version}/")
    if rest == "":
        return True
    if rest.startswith("watch/"):
        return False
    parts = rest.split("/")
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
        parts = parts[2:]
    return parts[0] in plurals and (parts[2] if len(parts) > 2 else "") in SUBRESOURCES


def without_protobuf(value):
    if isinstance(value, dict):
        return {k: without_protobuf(v) for k, v in value.items() if "protobuf" not in k and "cbor" not in k}
    if isinstance(value, list):
        return [without_protobuf(v) for v in value]
    return value


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(PREFIX)
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def main():
    source, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
    for group_version, plurals in SERVED.items():
        name = group_version.replace("/", "__") + ".json"
        document = json.loads((source / name).read_text())
        paths = {p: without_protobuf(v) for p, v in document["paths"].items() if served(p, group_version, plurals)}
        schemas, reached, todo = document["components"]["schemas"], {}, list(references(paths))
        while todo:
            schema = todo.pop()
            if schema not in reached:
                reached[schema] = schemas[schema]
                todo.extend(references(schemas[schema]))
        document["paths"] = paths
        document["components"]["schemas"] = dict(sorted(reached.items()))
        (here / name).write_text(json.dumps(document, separators=(",", ":")) + "\n")


main()
