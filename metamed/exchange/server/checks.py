"""What an uploaded document may hold: elements in their order, how often, how long, of which characters.

The rules are those of OpenML's schemas and of its database columns, whichever is stricter: what this server takes, the
public one takes too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from metamed.exchange.server.documents import local_name
from metamed.exchange.server.refusals import Refused

_PATTERNS = {
    "system": r"[a-zA-Z0-9_\-.]+",
    "casual": r"[a-zA-Z0-9_\-.(),]+",
    "flow": r"[a-zA-Z0-9_\-.,():=]+",
    "setting": r"[a-zA-Z0-9_\-.,():]+",
    "latin": r"[\x00-\x7f]+",
    "blank": r"[\x00-\x7f]*",
    "text": r"(?s:.*)",
    "int": r"[+-]?[0-9]{1,18}",
    "double": r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|-?INF|NaN",
    "date": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?",
    "url": r"[\x21-\x7e]*",
    "entity": r"run|task",
    "visibility": r"public|private|circles",
}
_MATCH: dict[str, Callable] = {name: re.compile(pattern).fullmatch for name, pattern in _PATTERNS.items()}

# one element a line, in the order of the schema: name, how often (1 once, ? at most once, * any, + at least once), the
# kind of text or another table in brackets, the longest text
_TABLES = """
data_set_description
  id ? int 18 · name 1 casual 128 · version ? system 64 · description 1 blank 16384 · format 1 casual 64
  creator * latin 128 · contributor * latin 128 · collection_date ? latin 128 · upload_date ? date 32
  language ? casual 128 · licence ? casual 64 · url ? url 512 · file_id ? int 18
  default_target_attribute ? casual 1024 · row_id_attribute ? casual 128 · ignore_attribute * casual 128
  version_label ? casual 128 · citation ? blank 1024 · tag * system 64 · visibility ? visibility 16
  original_data_url ? url 512 · paper_url ? url 512 · update_comment ? latin 128 · status ? system 64
  md5_checksum ? system 64
data_edit_parameters
  description ? blank 16384 · creator * latin 128 · contributor * latin 128 · collection_date ? latin 128
  language ? casual 128 · default_target_attribute ? casual 1024 · row_id_attribute ? casual 128
  ignore_attribute * casual 128 · citation ? blank 1024 · original_data_url ? url 512 · paper_url ? url 512
task_inputs
  task_id ? int 18 · task_type_id 1 int 18 · input + text 65536 · tag * system 64
flow
  id ? int 18 · uploader ? int 18 · name 1 flow 1024 · custom_name ? latin 128 · class_name ? flow 128
  version ? int 18 · external_version ? flow 128 · description 1 blank 1024 · creator * flow 128
  contributor * flow 128 · upload_date ? date 32 · licence ? flow 64 · language ? flow 128
  full_description ? text 65536 · installation_notes ? text 65536 · dependencies ? blank 1024 · implements ? flow 128
  parameter * [parameter] 0 · component * [component] 0 · quality * [quality] 0 · tag * system 64
  source_url ? url 512 · binary_url ? url 512 · source_format ? system 128 · binary_format ? system 128
  source_md5 ? system 128 · binary_md5 ? system 128
parameter
  name 1 flow 128 · data_type ? latin 128 · default_value ? text 2048 · description ? text 65536
  recommendedRange ? text 65536
component
  identifier 1 system 128 · flow 1 [flow] 0
quality
  name 1 system 128 · value 1 system 128
run
  run_id ? int 18 · uploader ? int 18 · uploader_name ? latin 128 · task_id ? int 18 · task_type ? latin 128
  task_evaluation_measure ? latin 128 · flow_id 1 int 18 · flow_name ? setting 1024 · setup_id ? int 18
  setup_string ? blank 2048 · error_message ? latin 128 · run_details * setting 1024
  parameter_setting * [parameter_setting] 0 · tag * system 64 · input_data ? [data] 0 · output_data ? [data] 0
parameter_setting
  name 1 setting 1024 · value 1 blank 2048 · component ? int 18
data
  dataset * [dataset] 0 · file * [file] 0 · evaluation * [evaluation] 0
dataset
  did 1 int 18 · name 1 setting 128 · url 1 url 512
file
  did 1 int 18 · file_id 1 int 18 · name 1 setting 128 · url 1 url 512
evaluation
  did ? int 18 · name 1 system 128 · flow_id ? int 18 · flow ? setting 1024 · label ? setting 1024
  value ? double 64 · stdev ? double 64 · array_data ? latin 128 · sample_size ? int 18
study
  id ? int 18 · alias ? system 32 · main_entity_type 1 entity 8 · benchmark_suite ? int 18 · name 1 latin 256
  description ? latin 4096 · creation_date ? date 32 · creator ? int 18 · data ? [ids] 0 · tasks ? [ids] 0
  flows ? [ids] 0 · setups ? [ids] 0 · runs ? [ids] 0
ids
  data_id * int 18 · task_id * int 18 · flow_id * int 18 · setup_id * int 18 · run_id * int 18
"""
_ATTRIBUTES = {"input": {"name": "system"}, "evaluation": dict.fromkeys(
    ("repeat", "fold", "sample", "interval_start", "interval_end"), "int")}  # fmt: skip


@dataclass(frozen=True)
class _Rule:
    place: int
    occurs: str
    kind: str
    limit: int

    @property
    def many(self) -> bool:
        return self.occurs in "*+"


def _read_tables() -> dict[str, dict[str, _Rule]]:
    tables: dict[str, dict[str, _Rule]] = {}
    for line in _TABLES.strip().splitlines():
        if not line.startswith(" "):
            table = tables[line] = {}
            continue
        for entry in line.split("·"):
            name, occurs, kind, limit = entry.split()
            table[name] = _Rule(len(table), occurs, kind, int(limit))
    return tables


_RULES = _read_tables()


def checked(element, code: int, table: str = "") -> dict:
    """The content of an element that keeps the rules of its table, as a document; refused with `code` else."""
    table = table or local_name(element)
    rules, found, place = _RULES[table], {}, 0
    for child in element:
        name = local_name(child)
        rule = rules.get(name)
        if rule is None:
            raise Refused(code, f"{table} has no element {name[:60]!r} (known: {', '.join(rules)})")
        if rule.place < place:
            raise Refused(code, f"{table}: {name} stands behind an element that must follow it")
        if rule.place == place - 1 and not rule.many and name in found:
            raise Refused(code, f"{table}: {name} occurs twice")
        place = rule.place
        value = _value(child, name, rule, code)
        if rule.many:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise Refused(code, f"{table}: {name} occurs twice")
        else:
            found[name] = value
    missing = [name for name, rule in rules.items() if rule.occurs in "1+" and name not in found]
    if missing:
        raise Refused(code, f"{table}: {', '.join(missing)} missing")
    return found


def _value(child, name: str, rule: _Rule, code: int):
    attributes = _attributes(child, name, code)
    if rule.kind.startswith("["):
        return attributes | checked(child, code, rule.kind.strip("[]"))
    if len(child):
        raise Refused(code, f"{name} holds elements, expected text")
    value = legal(child.text or "", rule.kind, rule.limit, code, name)
    return attributes | {"#text": value} if name in _ATTRIBUTES else value


def _attributes(child, name: str, code: int) -> dict:
    known = _ATTRIBUTES.get(name, {})
    for key, value in child.attrib.items():
        if key not in known:
            raise Refused(code, f"{name} has no attribute {key[:60]!r}")
        legal(value, known[key], 128, code, f"attribute {key} of {name}")
    return {f"@{key}": value for key, value in child.attrib.items()}


def legal(value: str, kind: str, limit: int, code: int, name: str) -> str:
    """The text itself if it is of that kind and at most so long."""
    if len(value) > limit:
        raise Refused(code, f"{name} has {len(value)} characters, at most {limit} are allowed")
    if not _MATCH[kind](value):
        raise Refused(code, f"{name}: {value[:60]!r} is not of the form {_PATTERNS[kind]}")
    return value


def number(value: object, code: int, name: str) -> int:
    """A number that fits the database, from the text of a request."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,18}", value):
        raise Refused(code, f"{name}: {str(value)[:60]!r} is not a natural number")
    return int(value)
