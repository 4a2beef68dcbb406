#!/usr/bin/env python3
"""Writes `messages.txt`, the protobuf messages of the Kubernetes API, out of what Kubernetes publishes; and
`testdata/protobuf.jsonl.gz`, objects of every kind that Kubernetes itself wrote both as protobuf and as JSON.

usage: messages.py API APIMACHINERY APIEXTENSIONS_APISERVER KUBE_AGGREGATOR

Each argument is a checkout of the repository of that name (github.com/kubernetes/api and so on), all at the same tag: v0.36.2
last time. They are under the Apache License 2.0. Of each package two kinds of files are read:

generated.proto  the messages: their fields' numbers and types
*.go             the structs that they are generated from, whose tags say what protobuf can't: a field's name in JSON,
                 whether it is a pointer, whether it is left out when it is zero, and whether its own fields are the outer one's

`messages.txt` has one message a line, sorted: its name, then its fields as `NUMBER TYPE PRESENCE NAME`
without spaces between them, and `=MESSAGE` where the type needs one (`.X` is in the same package).
TYPE      s string, b bool, i int32, l int64, d double, y bytes, m message, t Time, u MicroTime,
          n message whose fields are the outer one's in JSON, q Quantity, o IntOrString, r raw JSON, e list of strings in a message,
          A, B, C JSONSchemaPropsOrArray, -OrBool, -OrStringArray; before it `*` repeated, `%` map from string
PRESENCE  `?` wherever it is there (a pointer), `!` always, nothing: unless it is zero
"""
import base64
import gzip
import json
import pathlib
import re
import sys

VERSIONS = {"core": ["v1"], "apps": ["v1"], "batch": ["v1"], "autoscaling": ["v1", "v2"], "policy": ["v1"],
            "networking": ["v1"], "discovery": ["v1"], "coordination": ["v1"], "rbac": ["v1"],
            "storage": ["v1"], "scheduling": ["v1"], "node": ["v1"], "admissionregistration": ["v1"],
            "certificates": ["v1"], "flowcontrol": ["v1"], "authentication": ["v1"], "authorization": ["v1"],
            "events": ["v1"], "resource": ["v1"], "apidiscovery": ["v2"]}
# Messages that JSON writes as something else, and no lines of the table.
SPECIAL = {"meta.v1.Time": "t", "meta.v1.MicroTime": "u", "resource.Quantity": "q",
           "intstr.IntOrString": "o", "runtime.RawExtension": "r", "meta.v1.FieldsV1": "r",
           "apiextensions.v1.JSON": "r", "apiextensions.v1.JSONSchemaPropsOrArray": "A",
           "apiextensions.v1.JSONSchemaPropsOrBool": "B", "apiextensions.v1.JSONSchemaPropsOrStringArray": "C"}
# In no message, and not written by their fields in JSON.
UNUSED = {"meta.v1.Duration", "meta.v1.Timestamp"}
SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "l", "double": "d", "bytes": "y"}


def packages(api, apimachinery, apiextensions, aggregator):
    """Folder and short name of every package whose messages the table has."""
    for group, versions in VERSIONS.items():
        yield from ((api / group / version, f"{group}.{version}") for version in versions)
    yield apimachinery / "pkg/apis/meta/v1", "meta.v1"
    yield apiextensions / "pkg/apis/apiextensions/v1", "apiextensions.v1"
    yield aggregator / "pkg/apis/apiregistration/v1", "apiregistration.v1"


def short(kind, package):
    """`.k8s.io.api.core.v1.Pod` as `core.v1.Pod`, `.k8s.io.apimachinery.pkg.runtime.RawExtension` as `runtime.RawExtension`."""
    parts = kind.split(".")
    if len(parts) == 1:
        return f"{package}.{kind}"
    return ".".join(parts[-3 if re.fullmatch(r"v\d\w*", parts[-2]) else -2:])


def is_texts(fields):
    return fields == [(1, "repeated", "string", "items")]


def messages_of(folder):
    """The messages of a package: {name: [(number, label, type, field)]}."""
    text = re.sub(r"^\s*//.*$", "", (folder / "generated.proto").read_text(), flags=re.M)
    return {name: [(int(number), label or "map", kind, field)
                   for label, kind, field, number in re.findall(
                       r"^\s*(?:(optional|repeated) )?([\w.]+|map<string, [\w.]+>) (\w+) = (\d+);", body, re.M)]
            for name, body in re.findall(r"^message (\w+) \{(.*?)^\}", text, re.M | re.S)}


def tags_of(folder):
    """What the tags of a package's structs say: {struct: {number: (name in JSON, pointer, omitted, inline)}}."""
    found = {}
    for path in sorted(folder.glob("*.go")):
        for name, body in re.findall(r"^type (\w+) struct ?\{(\}|.*?^\})", path.read_text(), re.M | re.S):
            found[name] = fields = {}
            for kind, name_and_options, number in re.findall(
                    r'^\s*(?:\w+\s+)?([*\[\]\w.]+)\s+`json:"([^"]*)"[^`]*?protobuf:"\w+,(\d+)[^`]*`', body, re.M):
                name_in_json, *options = name_and_options.split(",")
                fields[int(number)] = (name_in_json, kind.startswith("*"), any("omit" in o for o in options),
                                       "inline" in options)
        for name, of in re.findall(r"^type (\w+) metav1\.(\w+)$", path.read_text(), re.M):
            found[name] = of
    return found


def field_of(message, number, label, kind, tags, package, messages):
    """One field as it stands in the table."""
    name, pointer, omitted, inline = tags
    count = {"optional": "", "repeated": "*", "map": "%"}[label]
    kind = re.sub(r"map<string, (.*)>", r"\1", kind)
    code, suffix = SCALARS.get(kind), ""
    if code is None:
        target = short(kind, package)
        code = SPECIAL.get(target)
        if code is None and is_texts(messages[target]):
            code = "e"
        if code is None:
            code = "n" if inline else "m"
            same = target.rsplit(".", 1)[0] == package
            suffix = "=" + (target.removeprefix(package) if same else target)
    presence = "" if count else "?" if pointer else "" if omitted else "!"
    assert name or inline, f"{package}.{message} has a field {number} without a name in JSON"
    return f"{number}{count}{code}{presence}{'' if inline else name}{suffix}"


def examples(api):
    """A line for each object of a stable version among those that Kubernetes keeps to test its own serializers with."""
    for path in sorted((api / "testdata/HEAD").glob("*.pb")):
        if re.search(r"\.v\d+\.\w+$", path.stem):
            protobuf = base64.b64encode(path.read_bytes()).decode()
            yield json.dumps({"json": json.loads(path.with_suffix(".json").read_text()), "protobuf": protobuf},
                             separators=(",", ":"), ensure_ascii=False)


def main():
    found = list(packages(*map(pathlib.Path, sys.argv[1:])))
    messages = {f"{package}.{name}": fields for folder, package in found for name, fields in messages_of(folder).items()}
    tags = {f"{package}.{name}": of for folder, package in found for name, of in tags_of(folder).items()}
    lines = []
    for name, fields in messages.items():
        # A list of strings is no struct in Go, and written by its own type.
        if name in SPECIAL or name in UNUSED or is_texts(fields):
            continue
        of = tags[name] if isinstance(tags[name], dict) else tags[f"meta.v1.{tags[name]}"]
        package, short_name = name.rsplit(".", 1)
        words = [field_of(short_name, number, label, kind, of[number], package, messages)
                 for number, label, kind, _ in sorted(fields)]
        lines.append(" ".join([name, *words]))
    here = pathlib.Path(__file__).parent
    (here / "messages.txt").write_text("\n".join(sorted(lines)) + "\n")
    lines = "".join(line + "\n" for line in examples(pathlib.Path(sys.argv[1])))
    (here / "../../testdata/protobuf.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 9, mtime=0))


main()
