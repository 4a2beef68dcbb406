#!/usr/bin/env python3
"""Writes `messages.txt`: the protobuf messages of the Kubernetes API, from three public sources.

usage: messages.py K8S_PB OPENAPI KUBECTL

K8S_PB   the `src` folder of the crate k8s-pb: messages, field numbers and types
OPENAPI  a folder with api__v1.json, apis__apps__v1.json, ... as `GET /openapi/v3/api/v1` and its like answer:
         the fields' names in JSON, and which are required
KUBECTL  the kubectl program (amd64, not position independent): the struct tags that it reflects on say which
         fields are pointers and which are left out when they are zero

`messages.txt` has one message a line, sorted: its name, then its fields as `NUMBER TYPE PRESENCE NAME`
without spaces between them, and `=MESSAGE` where the type needs one (`.X` is in the same package).
TYPE      s string, b bool, i int32, l int64, d double, y bytes, m message, t Time, u MicroTime,
          n message whose fields are the outer one's in JSON, q Quantity, o IntOrString, r raw JSON, e list of strings in a message,
          A, B, C JSONSchemaPropsOrArray, -OrBool, -OrStringArray; before it `*` repeated, `%` map from string
PRESENCE  `?` told wherever it is there (a pointer), `!` always told, nothing: told unless it is zero
"""
import collections
import json
import pathlib
import re
import struct
import sys

GROUPS = {"core": ["v1"], "apps": ["v1"], "batch": ["v1"], "autoscaling": ["v1", "v2"], "policy": ["v1"],
          "networking": ["v1"], "discovery": ["v1"], "coordination": ["v1"], "rbac": ["v1"],
          "storage": ["v1"], "scheduling": ["v1"], "node": ["v1"], "admissionregistration": ["v1"],
          "certificates": ["v1"], "flowcontrol": ["v1"], "authentication": ["v1"], "authorization": ["v1"],
          "events": ["v1"], "resource": ["v1"], "apidiscovery": ["v2"]}
SPECIAL = {"meta.v1.Time": "t", "meta.v1.MicroTime": "u", "quantity.Quantity": "q",
           "intstr.IntOrString": "o", "runtime.RawExtension": "r", "meta.v1.FieldsV1": "r",
           "apiextensions.v1.Json": "r", "apiextensions.v1.JsonSchemaPropsOrArray": "A",
           "apiextensions.v1.JsonSchemaPropsOrBool": "B", "apiextensions.v1.JsonSchemaPropsOrStringArray": "C"}
SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "l", "double": "d", "bytes": "y"}
# Types that no program reflects on here; known from their published documentation.
POINTERS = {"Maximum", "Minimum", "MaxLength", "MinLength", "MaxItems", "MinItems", "MultipleOf", "MaxProperties",
            "MinProperties", "XKubernetesPreserveUnknownFields", "XKubernetesListType", "XKubernetesMapType"}


def normal(name):
    return re.sub("[^a-z0-9]", "", name.lower())


def package(path):
    parts = path.parts
    if parts[0] == "api":
        if parts[1:3] == ("admissionregistration", "v1beta1"):
            return "admissionregistration.v1beta1"
        return f"{parts[1]}.{parts[2]}" if len(parts) > 3 and parts[2] in GROUPS.get(parts[1], []) else None
    joined = "/".join(parts[:-1])
    return {"apimachinery/pkg/apis/meta/v1": "meta.v1", "apimachinery/pkg/api/resource": "quantity",
            "apimachinery/pkg/util/intstr": "intstr", "apimachinery/pkg/runtime": "runtime",
            "apiextensions_apiserver/pkg/apis/apiextensions/v1": "apiextensions.v1",
            "kube_aggregator/pkg/apis/apiregistration/v1": "apiregistration.v1"}.get(joined)


def messages_of(root):
    """Messages by package-qualified name: [(number, prost type, field, rust type)]."""
    found = {}
    for path in sorted(root.rglob("*.rs")):
        pkg = package(path.relative_to(root))
        if not pkg:
            continue
        text = re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M)
        for struct_match in re.finditer(r"pub struct (\w+) \{(?:\}|(.*?)^\})", text, re.S | re.M):
            fields = re.findall(r"#\[prost\(([^]]*)\)\]\s*pub (?:r#)?(\w+):\s*([^#]*?),\s*(?=#|$)", struct_match[2] or "", re.S)
            found[f"{pkg}.{struct_match[1]}"] = [
                (int(re.search(r'tag = "(\d+)"', attr)[1]), attr, name, re.sub(r"\s", "", kind))
                for attr, name, kind in fields]
    for name in [name for name in found if ".v1beta1." in name]:
        # What became stable since: its messages are those of the last version before.
        found.setdefault(name.replace(".v1beta1.", ".v1."), found[name])
        del found[name]
    return found


def target_of(kind, pkg):
    """The message that a Rust type path names."""
    path = re.findall(r"[\w:]+", kind.replace("r#", ""))
    path = [p for p in path if not p.startswith("::") and p not in ("String",)][-1]
    parts = [p for p in path.split("::") if p]
    name = parts[-1]
    for marker, qualified in (("meta::v1", "meta.v1"), ("api::resource", "quantity"), ("intstr", "intstr"),
                              ("runtime", "runtime"), ("core::v1", "core.v1")):
        if marker in path:
            return f"{qualified}.{name}"
    if len(parts) == 1:
        return f"{pkg}.{name}"
    versions = [i for i, p in enumerate(parts) if re.fullmatch(r"v\d\w*", p)]
    return f"{parts[versions[-1] - 1]}.{parts[versions[-1]]}.{name}"


def schemas_of(folder):
    """JSON fields by package-qualified schema name: {normalized: (name, required)}; and the names as published."""
    found, names = {}, {}
    for path in folder.glob("*__v*.json"):
        for name, schema in json.loads(path.read_text()).get("components", {}).get("schemas", {}).items():
            parts = name.split(".")
            fields = {normal(f): (f, f in schema.get("required", [])) for f in schema.get("properties", {})}
            found.setdefault(normal(".".join(parts[-3:])), {}).update(fields)
            names[normal(".".join(parts[-3:]))] = ".".join(parts[-3:])
    return found, names


def structs_of(program):
    """What a Go program's types say: {struct name: [{number: (json name, omitted if zero, pointer)}]}."""
    data = program.read_bytes()
    offset, = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", data, offset + i * size) for i in range(count)]
    strings = sections[names][4]
    base, start, length = next((s[3], s[4], s[5]) for s in sections
                               if data[strings + s[0]:].startswith(b".rodata\0"))
    rodata = data[start:start + length]
    tags = {}
    for match in re.finditer(rb'json:"[^"]*" protobuf:"[^"]*"', rodata):
        found = field_name(rodata, match.start(), match.end())
        if found:
            tags[base + found[0]] = found[1]
    words = struct.unpack_from(f"<{length // 8}Q", rodata)
    fields = {i: (tags[w], rodata[words[i + 1] - base + 23] & 31) for i, w in enumerate(words)
              if w in tags and base <= words[i + 1] < base + length}
    found = collections.defaultdict(list)
    for i in range(len(words) - 2):
        first, n = words[i], words[i + 1]
        if not (base <= first < base + length and first % 8 == 0 and 0 < n < 200 and words[i + 2] == n):
            continue
        members = [fields.get((first - base) // 8 + 3 * k) for k in range(n)]
        header = i * 8 - 56
        if not any(members) or rodata[header + 23] & 31 != 25:
            continue
        at, = struct.unpack_from("<i", rodata, header + 40)
        size = rodata[at + 1] & 0x7F | (rodata[at + 2] << 7 if rodata[at + 1] & 0x80 else 0)
        at += 2 if rodata[at + 1] < 0x80 else 3
        name = rodata[at:at + size].decode().lstrip("*").split(".")[-1]
        members = {int(tag[1].split(",")[1]): (tag[0].split(",")[0], "omit" in tag[0], kind == 22)
                   for tag, kind in filter(None, members) if tag[1]}
        found[name.lower()].append(members)
    return found


def field_name(rodata, start, end):
    """The place of a reflected field's name, and its tags (json, protobuf)."""
    for back in range(120):
        for width in (1, 2):
            at = start - back - width
            size = rodata[at] if width == 1 else rodata[at] & 0x7F | rodata[at + 1] << 7
            if (width == 1) != (rodata[at] < 0x80) or not back + end - start <= size <= 600:
                continue
            tag = rodata[at + width:at + width + size]
            if not tag.isascii() or not tag.endswith(b'"'):
                continue
            for n in range(1, 80):
                name = at - n - 1
                if rodata[name] == n and 2 <= rodata[name - 1] < 16 and rodata[name + 1:name + 1 + n].isalnum():
                    tag = tag.decode()
                    return name - 1, (re.search('json:"([^"]*)"', tag)[1], re.search('protobuf:"([^"]*)"', tag)[1])
    return None


def line_of(name, fields, messages, schemas, structs):
    pkg, short = name.rsplit(".", 1)
    published = schemas.get(normal(name), {})
    numbers = {number for number, *_ in fields}
    reflected = max(structs.get(short.lower(), []), key=lambda s: (len(numbers & s.keys()) - len(s.keys() - numbers),
                    sum(normal(s[n][0]) == normal(f) for n, _, f, _ in fields if n in s)), default={})
    words = [name]
    for number, attr, field, kind in sorted(fields):
        many = "%" if "map" in attr else "*" if "repeated" in attr else ""
        plain = re.search(r"map = \"string, (\w+)", attr)[1] if many == "%" else re.match(r"\w+", attr)[0]
        suffix = ""
        if plain == "message":
            target = target_of(kind, pkg)
            code = SPECIAL.get(target)
            if code is None and [f[2] for f in messages[target]] == ["items"] and "string" in messages[target][0][1]:
                code = "e"
            if code is None:
                inner = {normal(field) for _, _, field, _ in messages[target]}
                inlined = normal(field) not in published and published and inner & published.keys()
                code, suffix = "n" if inlined else "m", "=" + (target.removeprefix(pkg) if target.startswith(pkg + ".") else target)
        else:
            code = SCALARS[plain]
        json_name, required = published.get(normal(field), (None, False))
        if number in reflected:
            told, omitted, pointer = reflected[number]
            json_name = json_name or told
        else:
            told, omitted, pointer = None, not required, not required
            if pkg.startswith("apiext") and code in "sbild":
                pointer = "".join(p.capitalize() for p in field.split("_")) in POINTERS
            # Strings are rarely pointers; an observed generation never is.
            if code == "s" or field == "observed_generation":
                pointer, omitted = False, omitted or pointer
        if code == "n":
            json_name = ""
        elif json_name is None:
            json_name = re.sub("_(.)", lambda m: m[1].upper(), field)
        presence = "" if many else "?" if pointer else "" if omitted else "!"
        words.append(f"{number}{many}{code}{presence}{json_name}{suffix}")
    return " ".join(words)


def main():
    root, folder, program = map(pathlib.Path, sys.argv[1:])
    messages, structs, (schemas, published) = messages_of(root), structs_of(program), schemas_of(folder)
    wanted = [name for name in messages if name.rsplit(".", 1)[0] not in ("quantity", "intstr", "runtime")
              and name not in SPECIAL]
    lines = [line_of(name, messages[name], messages, schemas, structs) for name in wanted]
    # Kinds are spelled as they are published: CSINode, HTTPGetAction.
    spelled = {name: published.get(normal(name), name) for name in wanted}
    for i, (name, line) in enumerate(zip(wanted, lines)):
        pkg = name.rsplit(".", 1)[0]
        line = re.sub(r"=(\.\w+)", lambda m: "=" + spelled[pkg + m[1]].removeprefix(pkg), line)
        lines[i] = spelled[name] + line.removeprefix(name)
    lines.sort()
    (pathlib.Path(__file__).parent / "messages.txt").write_text("\n".join(lines) + "\n")


main()
