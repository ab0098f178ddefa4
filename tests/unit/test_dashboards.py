"""Dashboards of roles: their form, how Grafana gets them, and whether what they ask for exists.

What Grafana takes is checked against the types that it publishes (npm's @grafana/schema), where there is npm: they are fetched once into the lab's
cache. That the questions are PromQL, promtool says where there is one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.sovereign.dify.plugins.filter.grafana_dashboard import grafana_dashboard
from ansible_collections.sovereign.dify.plugins.module_utils import dashboards
from ansible_collections.sovereign.dify.plugins.module_utils.dashboards import Dashboard, Panel, declared, grafana
from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import DeclarationError

from lab.substrate.steps import CACHE, lock

PROJECT = Path(__file__).resolve().parents[2]
FILES = sorted(PROJECT.glob("roles/*/monitoring/dashboard.yml"))
ROLES = [path.parts[-3] for path in FILES]
KNOWN = PROJECT / "tests/unit/fixtures/metrics.txt"
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.parts[-3])

Declaration = dict[str, Any]


def panel(**changes: Any) -> Declaration:
    return {"title": "P", "kind": "timeseries", "queries": [{"expr": "up", "legend": "{instance}"}]} | changes


def document(*panels: Declaration, **changes: Any) -> Declaration:
    return {"title": "D", "rows": [{"title": "R", "panels": list(panels)}]} | changes


def only_panel(**changes: Any) -> Panel:
    return declared("r", document(panel(**changes))).rows[0].panels[0]


def drawn(*panels: Declaration, roles: tuple[str, ...] = (), **changes: Any) -> list[dict[str, Any]]:
    """Panels for Grafana, without the heading of their row."""
    return [one for one in grafana(declared("r", document(*panels, **changes)), roles)["panels"] if one["type"] != "row"]


@cache
def read(path: Path) -> Dashboard:
    return declared(path.parts[-3], yaml.safe_load(path.read_text()))


# --- The form ---------------------------------------------------------------------------------------------------------------------------------------


def test_a_declaration_is_put_in_one_form() -> None:
    found = only_panel(unit="s", thresholds={"above": {"warning": 1}}, states={0: ["down", "critical"], 1: "up"}, role="redis", max=5, width=6)
    assert found.queries == (dashboards.Query("up", "{instance}", "", None, {}),)
    assert found.thresholds == dashboards.Thresholds(False, 1, None)
    assert found.states == {0.0: dashboards.State("down", "critical"), 1.0: dashboards.State("up", "neutral")}
    assert (found.unit, found.width, found.height, found.maximum, found.minimum, found.role) == ("s", 6, 8, 5, None, "redis")


NONSENSE: list[tuple[object, str]] = [
    ([], "r: give a mapping of description, rows, title, variables"),
    ({"title": "D"}, "r.rows: required"),
    (document(panel(), uid="x"), "r.uid: unknown; known are description, rows, title, variables"),
    (document(), "r: rows[1].panels: give one panel at least"),
    (document(panel(), panel()), "r: two panels have the title 'P': give each its own"),
    (document(panel(), variables={"a": {"series": "up"}}), "r: variables.a: no query has it; take it away"),
    (document(panel(), variables={"A": {"series": "up"}}), "r: variables.A: use lower-case letters, digits and '_', a letter first"),
]
BAD_PANELS: list[tuple[Declaration, str]] = [
    ({"kind": "graph"}, "kind: 'graph' is none of timeseries, stat, gauge, table, heatmap, state"),
    ({"unit": "seconds"}, f"unit: 'seconds' is no unit; known are {', '.join(dashboards.UNITS)}"),
    ({"queries": []}, "queries: give one query at least"),
    ({"queries": [{"expr": "up"}]}, "queries[1].legend: required: without it nobody knows what is what"),
    ({"queries": [{"expr": "sum(up", "legend": "x"}]}, "queries[1].expr: ( is not closed: sum(up"),
    ({"queries": [{"expr": "up", "legend": "{a"}]}, "queries[1].legend: '{a': write {label} for the value of a label"),
    ({"queries": [{"expr": "up", "legend": "x", "unit": "s"}]}, "queries[1].unit: only a column of a table has one of its own; give it to the"),
    ({"queries": [{"expr": "up", "legend": "x"}] * 2}, "queries: two of them have the same legend"),
    ({"kind": "heatmap", "queries": [{"expr": "a"}, {"expr": "b", "legend": "x"}]}, "queries: a heatmap shows one query, which gives the buckets of"),
    ({"kind": "state"}, "states: required: say what the values mean, as in {0: [down, critical], 1: [up, good]}"),
    ({"states": {"a": "b"}}, "states: 'a' is no number"),
    ({"states": {1: ["up", "fine"]}}, "states.1: give a text, or a text and one of good, warning, critical, neutral, as in [down, critical]"),
    ({"kind": "gauge"}, "max: required: a gauge shows how much there is of that"),
    ({"columns": {"a": "A"}}, "columns: only tables have columns; make it kind: table, or take it away"),
    ({"kind": "stat", "stack": True}, "stack: only series over time can lie on each other; make it kind: timeseries, or take it away"),
    ({"kind": "table", "sort": "-Age"}, "sort: '-Age' is no heading of a column; there are {instance}"),
    ({"kind": "table", "columns": {"a": "X", "b": "X"}}, "columns: two columns have the same heading"),
    ({"thresholds": {"over": 1}}, "thresholds: give above (bad from there on) or below (bad under it), as in {above: {warning: 0.8"),
    ({"thresholds": {"above": {"warning": 2, "critical": 1}}}, "thresholds.above: critical must be above warning"),
    ({"thresholds": {"below": {"warning": 1, "critical": 2}}}, "thresholds.below: critical must be below warning"),
    ({"thresholds": {"above": {"warning": "high"}}}, "thresholds.above.warning: 'high' is no number"),
    ({"width": 25}, "width: 25 is no whole number up to 24"),
    ({"title": True}, "title: True is no text; put it in quotes"),
]
NONSENSE += [(document(panel(**changes)), told) for changes, told in BAD_PANELS]
BAD_VARIABLES = [
    ('up{instance=~"$host"}', "r: $host is no variable; known are instance"),
    ('up{instance="$instance"}', 'r: write =~"$instance": more than one value can be selected'),
    ('up{instance=~"$instance.*"}', 'r: write =~"$instance": more than one value can be selected'),
]
NONSENSE += [
    (document(panel(queries=[{"expr": expr, "legend": "x"}]), variables={"instance": {"series": "up"}}), told) for expr, told in BAD_VARIABLES
]


@pytest.mark.parametrize(("given", "told"), NONSENSE, ids=lambda value: value if isinstance(value, str) else "")
def test_nonsense_is_refused_by_its_place(given: object, told: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        declared("r", given)
    text = str(refused.value).replace("r: rows[1] (R).panels[1] (P).", "").replace("r: rows[1] (R).panels[1].", "")
    assert text.startswith(told)


def test_brackets_and_quotes_are_counted_as_promql_does() -> None:
    right = ['a{b=~"(x[", c="\\""}', "rate(a[5m])", "a{b='\"'}", "a{b=`\\`}"]
    assert [dashboards.expression_fault(expr) for expr in right] == [""] * len(right)
    wrong = {"a)": ") closes nothing", "(a]": "] closes nothing", 'a{b="c}': '" is not closed', "a{b": "{ is not closed", " ": "it is empty"}
    assert {expr: dashboards.expression_fault(expr) for expr in wrong} == wrong


# --- Grafana's form ---------------------------------------------------------------------------------------------------------------------------------


def test_panels_lie_beside_each_other_and_never_on_each_other() -> None:
    one, two, three = drawn(panel(title="1", height=4), panel(title="2", height=9), panel(title="3", width=20))
    assert [one["gridPos"], two["gridPos"]] == [{"h": 9, "w": 12, "x": 0, "y": 1}, {"h": 9, "w": 12, "x": 12, "y": 1}]
    assert three["gridPos"] == {"h": 8, "w": 20, "x": 0, "y": 10}


def test_what_a_site_does_not_have_is_left_out_and_what_it_has_leads_there() -> None:
    panels = [panel(title="own", role="r"), panel(title="etcd", role="etcd"), panel(title="redis", role="redis")]
    found = drawn(*panels, roles=("r", "redis"))
    assert [one["title"] for one in found] == ["own", "redis"]
    assert [[link["url"] for link in one["links"]] for one in found] == [[], ["/d/sovereign-redis"]]
    rows = [{"title": "R", "role": "object_storage", "panels": [panel()]}]
    assert drawn(rows=rows, roles=("r",)) == []
    assert drawn(rows=rows, roles=("object_storage",))[0]["links"][0]["url"] == "/d/sovereign-object-storage"


@pytest.mark.parametrize(
    ("thresholds", "steps"),
    [
        (None, [("text", None)]),
        ({"above": {"warning": 1, "critical": 2}}, [("green", None), ("orange", 1), ("red", 2)]),
        ({"above": {"critical": 2}}, [("green", None), ("red", 2)]),
        ({"below": {"warning": 21, "critical": 7}}, [("red", None), ("orange", 7), ("green", 21)]),
        ({"below": {"warning": 21}}, [("orange", None), ("green", 21)]),
        ({"below": {"critical": 7}}, [("red", None), ("green", 7)]),
    ],
)
def test_colours_begin_where_values_become_bad(thresholds: Declaration | None, steps: list[tuple[str, float | None]]) -> None:
    found = drawn(panel(**({"thresholds": thresholds} if thresholds else {})))[0]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in found] == steps


def test_values_are_shown_as_what_they_mean() -> None:
    found = drawn(panel(kind="state", states={0: ["down", "critical"], 1: ["up", "good"]}))[0]
    options = found["fieldConfig"]["defaults"]["mappings"][0]["options"]
    assert {value: (said["text"], said["color"]) for value, said in options.items()} == {"0": ("down", "red"), "1": ("up", "green")}


def test_a_table_has_the_declared_columns_in_their_order() -> None:
    queries = [{"expr": "a", "legend": "A"}, {"expr": "b", "legend": "B", "unit": "s", "thresholds": {"above": {"warning": 1}}}]
    found = drawn(panel(kind="table", columns={"instance": "Host"}, queries=queries, sort="-B"))[0]
    assert [target["format"] for target in found["targets"]] == ["table", "table"]
    assert found["transformations"][2]["options"]["renameByName"] == {"instance": "Host", "Value #A": "A", "Value #B": "B"}
    assert found["options"]["sortBy"] == [{"displayName": "B", "desc": True}]
    assert found["fieldConfig"]["overrides"][1]["matcher"] == {"id": "byName", "options": "B"}
    one = drawn(panel(kind="table", columns={"instance": "Host"}, queries=queries[:1]))[0]
    assert one["transformations"][1]["options"]["include"]["names"] == ["instance", "Value"]


def test_legends_are_those_of_grafana() -> None:
    assert drawn(panel(queries=[{"expr": "up", "legend": "{name} at {instance}"}]))[0]["targets"][0]["legendFormat"] == "{{name}} at {{instance}}"
    assert drawn(panel(kind="heatmap", queries=[{"expr": "a"}]))[0]["targets"][0]["legendFormat"] == "{{le}}"


def test_the_filter_tells_whose_dashboard_is_wrong() -> None:
    assert grafana_dashboard(document(panel()), "model_gateway", [])["uid"] == "sovereign-model-gateway"
    with pytest.raises(AnsibleFilterError, match=r"dashboard of redis.title: required"):
        grafana_dashboard({"rows": []}, "redis", [])


@each
def test_a_dashboard_has_ids_and_places_of_its_own(path: Path) -> None:
    found = grafana(read(path), ROLES)
    ids = [one["id"] for one in found["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for one in found["panels"]:
        place = one["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24, one["title"]
        assert not cells & taken, one["title"]
        taken |= cells


def test_dashboards_have_names_of_their_own_that_grafana_takes() -> None:
    assert len({read(path).title for path in FILES}) == len(FILES)
    for role in ROLES:
        assert re.fullmatch(r"[a-z0-9-]{1,40}", dashboards.uid(role))


def test_whoever_has_rules_has_a_dashboard() -> None:
    assert {path.parts[-3] for path in PROJECT.glob("roles/*/monitoring/rules.yml")} <= set(ROLES)


@each
def test_what_a_dashboard_shows_of_other_roles_has_one_itself(path: Path) -> None:
    for row in read(path).rows:
        for role in {row.role, *(one.role for one in row.panels)} - {""}:
            assert role in ROLES, (row.title, role)


# --- What is asked for exists -----------------------------------------------------------------------------------------------------------------------

TOKEN = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[a-zA-Z_:][a-zA-Z0-9_:]*|[0-9][0-9a-zA-Z.]*|\[[^\]]*\]|=~|!~|!=|\S")
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
OF_COUNTERS = {"rate", "irate", "increase"}
OF_BOTH = {"changes", "resets", "count", "count_over_time", "absent_over_time", "timestamp"}


@dataclass(frozen=True)
class Use:
    """A metric in an expression: its name, or a pattern of names, and the function around it."""

    name: str
    function: str
    pattern: bool = False


def uses(expr: str) -> Iterator[Use]:
    """Find the metrics in an expression."""
    tokens = TOKEN.findall(expr)
    functions: list[str] = []
    # Of "sum by (…) (…)", the sum until its bracket comes.
    waiting = ""
    position = 0
    while position < len(tokens):
        token, following = tokens[position], tokens[position + 1] if position + 1 < len(tokens) else ""
        if token in GROUPING:
            if following == "(":
                position = tokens.index(")", position)
        elif token == "{":
            end = tokens.index("}", position)
            if "__name__" in tokens[position:end]:
                yield Use(tokens[tokens.index("__name__", position) + 2].strip("\"'"), functions[-1] if functions else "", True)
            position = end
        elif token == "(":
            functions.append(waiting)
            waiting = ""
        elif token == ")":
            functions.pop()
        elif re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", token) and token not in WORDS:
            if following == "(":
                functions.append(token)
                position += 1
            elif following in ("by", "without"):
                waiting = token
            else:
                yield Use(token, functions[-1] if functions else "")
        position += 1


def test_metrics_are_found_in_expressions() -> None:
    expr = 'histogram_quantile(0.9, sum by (le) (rate(a_bucket{x="sum(b)"}[5m]))) / on (job) group_left (c) (d:e > 0) or vector(0) unless time() - f'
    assert list(uses(expr)) == [Use("a_bucket", "rate"), Use("d:e", ""), Use("f", "")]
    assert list(uses("a / on (b) c offset 1h")) == [Use("a", ""), Use("c", "")]
    assert list(uses("count by (a) (b) / count(c)")) == [Use("b", "count"), Use("c", "count")]
    assert list(uses('max({__name__=~"a_(b|c)", d="e"})')) == [Use("a_(b|c)", "max", True)]


@cache
def recorded() -> set[str]:
    """Names of recording rules."""
    files = PROJECT.glob("roles/*/monitoring/rules.yml")
    return {rule["record"] for path in files for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"] if "record" in rule}


@cache
def known() -> dict[str, str]:
    """Metrics that exist, with their types as far as they are known.

    Those that alerts are made of: whoever wrote the alert has looked at them. Those that our own programs print. And those of the list, which has
    been looked at for the dashboards alone.
    """
    found: dict[str, str] = {}
    for path in PROJECT.glob("roles/*/monitoring/rules.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                found |= {use.name: "" for use in uses(rule["expr"])}
    for path in [*PROJECT.glob("roles/*/monitoring/*.py"), PROJECT / "roles/exporters/files/textfiles.py"]:
        text = path.read_text()
        found |= dict.fromkeys(re.findall(r"\bsovereign_[a-z0-9_]+[a-z0-9]\b", text), "")
        # A name that is put together of a beginning and of what is written elsewhere.
        beginnings, ends = set(re.findall(r"(sovereign_[a-z0-9_]+_)\{", text)), set(re.findall(r'"([a-z][a-z0-9_]+)"', text))
        found |= {beginning + end: "" for beginning in beginnings for end in ends}
        found |= dict(re.findall(r"# TYPE (sovereign_[a-z0-9_]+) ([a-z]+)", text))
    for path in PROJECT.glob("roles/*/monitoring/*.mtail"):
        for kind, name in re.findall(r"^(counter|gauge|histogram) (\w+)", path.read_text(), re.MULTILINE):
            found |= {f"{name}_{end}": "counter" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name: kind}
    for line in KNOWN.read_text().splitlines():
        if line and not line.startswith("#"):
            name, kind = line.split()
            found[name] = kind
    return found


def kind_of(name: str) -> str:
    """Say whether a metric is a counter or a gauge; nothing if nobody knows."""
    given = known().get(name, "")
    if given or name in recorded():
        return given or "gauge"
    return "counter" if re.search(r"_(total|bucket|sum|count)$", name) else ""


def asked(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    """All questions, each with where it stands."""
    for variable in dashboard.variables:
        yield f"variable {variable.name}", variable.series
    for row in dashboard.rows:
        for one in row.panels:
            for query in one.queries:
                yield f"{row.title}: {one.title}", query.expr


@each
def test_every_metric_exists(path: Path) -> None:
    names = recorded() | set(known())
    for where, expr in asked(read(path)):
        for use in uses(expr):
            there = any(re.fullmatch(use.name, name) for name in names) if use.pattern else use.name in names
            assert there, f"{where}: nobody knows {use.name}; look at what serves it, and add it to {KNOWN.relative_to(PROJECT)}: {expr}"


@each
def test_counters_are_asked_for_their_rates_and_gauges_for_their_values(path: Path) -> None:
    for where, expr in asked(read(path)):
        for use in uses(expr):
            if use.pattern or use.function in OF_BOTH or where.startswith("variable "):
                continue
            kind = kind_of(use.name)
            assert kind != "counter" or use.function in OF_COUNTERS, f"{where}: {use.name} is a counter: {expr}"
            assert kind != "gauge" or use.function not in OF_COUNTERS, f"{where}: {use.name} is no counter: {expr}"


@each
def test_legends_and_columns_have_labels_that_are_left(path: Path) -> None:
    """An aggregation leaves the labels that it is made by."""
    for row in read(path).rows:
        for one in row.panels:
            for query in one.queries:
                left = re.match(r"(?:sum|min|max|avg|count) by \(([^)]*)\)", query.expr)
                if left:
                    wanted = set(dashboards.PLACEHOLDER.findall(query.legend)) | set(one.columns)
                    assert wanted <= {label.strip() for label in left[1].split(",")}, f"{one.title}: {query.expr}"


@each
def test_lines_of_a_table_fit_together(path: Path) -> None:
    """Those of several questions become one where their labels are the same, so each must be made by all columns."""
    for row in read(path).rows:
        for one in row.panels:
            if one.kind == "table" and len(one.queries) > 1:
                for query in one.queries:
                    left = re.search(r"\b(?:sum|min|max|avg|count) by \(([^)]*)\)", query.expr)
                    assert left, f"{one.title}: {query.expr}"
                    assert {label.strip() for label in left[1].split(",")} == set(one.columns), f"{one.title}: {query.expr}"


def test_promtool_takes_every_question(tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        pytest.skip("there is no promtool (apt install prometheus)")
    rules = [{"record": "asked", "expr": expr} for path in FILES for _, expr in asked(read(path))]
    groups = [{"name": str(number), "rules": [rule]} for number, rule in enumerate(rules)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    done = subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


# --- Grafana takes it -------------------------------------------------------------------------------------------------------------------------------

VERSION = "13.2.3"
PACKAGES = (f"@grafana/schema@{VERSION}", "typescript@5")
TYPES = r"""
import type { Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel, TableFieldOptions, TableOptions } from '@grafana/schema';
import type * as gauge from '@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as state from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type { Prometheus } from './dataquery';

// Texts and numbers, as JSON has them, in place of the names of enumerations.
type Bare = number | boolean | null | undefined;
type Plain<T> = T extends string ? `${T}` : T extends Bare ? T : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
// A panel whose options, fields and questions are those of its type.
type Drawn<Type, Options, Custom> = Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Type;
  options: Partial<Options>;
  fieldConfig: { defaults: Omit<FieldConfig, 'custom'> & { custom?: Partial<Custom> }; overrides: FieldConfigSource['overrides'] };
  targets: Prometheus[];
};
type Drawing =
  | RowPanel
  | Drawn<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Drawn<'stat', stat.Options, never>
  | Drawn<'gauge', gauge.Options, never>
  | Drawn<'table', TableOptions, TableFieldOptions>
  | Drawn<'state-timeline', state.Options, state.FieldConfig>
  | Drawn<'heatmap', heatmap.Options, heatmap.FieldConfig>;
type Checked = Plain<Omit<Dashboard, 'panels'> & { panels: Drawing[] }>;
"""


def fetch(place: Path) -> None:
    """Bring the types into a directory."""
    place.mkdir(parents=True, exist_ok=True)
    packed = [f"@grafana/{name}@{VERSION}" for name in ("prometheus", "data")]
    for command in (["install", "--ignore-scripts", "--no-audit", "--no-fund", *PACKAGES], ["pack", "--silent", *packed]):
        done = subprocess.run(["npm", *command], cwd=place, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"npm {' '.join(command)}:\n{done.stdout}{done.stderr}"
    # Of these two, one file each: with all that they need they are a hundred times as large.
    for name, file in (("prometheus", "dist/types/dataquery.d.ts"), ("data", "dist/esm/valueFormats/categories.mjs")):
        packed_file = place / f"grafana-{name}-{VERSION}.tgz"
        with tarfile.open(packed_file) as archive:
            content = archive.extractfile(f"package/{file}")
            assert content
            (place / Path(file).name).write_bytes(content.read())
        packed_file.unlink()


@cache
def published() -> Path:
    """Give a directory with the types that Grafana publishes, fetched once; skip the test where there is no npm."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm, by which the types that Grafana publishes would be fetched (apt install npm)")
    place = CACHE / "grafana-schema"
    complete = place / f"complete-{VERSION}"
    with lock("grafana-schema"):
        if not complete.exists():
            fetch(place)
            complete.touch()
    return place


def mistakes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Dashboards that the check must refuse: or it would not be one."""
    right = grafana(declared("r", document(panel(), variables={}, description="x")), [])
    query = {"name": "x", "type": "qurey", "query": "y"}
    yield "a number for a text", right | {"refresh": 30}
    yield "no such type of a variable", right | {"templating": {"list": [query]}}
    _, drawing = right["panels"]
    for what, changes in {
        "no such key of a panel": {"tittle": "x"},
        "no such panel": {"type": "timeserie"},
        "a text for a number": {"gridPos": drawing["gridPos"] | {"w": "12"}},
        "no such option": {"options": drawing["options"] | {"legends": {}}},
        "no such value of an option": {"options": drawing["options"] | {"tooltip": {"mode": "all", "sort": "desc"}}},
        "no such key of a question": {"targets": [drawing["targets"][0] | {"legend": "x"}]},
        "no such style of a line": {"fieldConfig": {"defaults": {"custom": {"drawStyle": "lines"}}, "overrides": []}},
    }.items():
        yield what, right | {"panels": [drawing | changes]}


def test_grafana_takes_every_dashboard(tmp_path: Path) -> None:
    place = published()
    lines = [TYPES]
    for path in FILES:
        lines.append(f"export const {path.parts[-3]}: Checked = {json.dumps(grafana(read(path), ROLES), indent=1)};")
    for number, (what, wrong) in enumerate(mistakes()):
        lines.append(f"// @ts-expect-error {what}\nexport const mistake_{number}: Checked = {json.dumps(wrong)};")
    (tmp_path / "check.ts").write_text("\n".join(lines))
    for name in ("node_modules", "dataquery.d.ts"):
        (tmp_path / name).symlink_to(place / name)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--preserveSymlinks"]
    options += ["--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022"]
    command = [str(place / "node_modules/.bin/tsc"), *options, "check.ts"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[:5000] + done.stderr


def test_grafana_knows_every_unit() -> None:
    units = set(re.findall(r"\bid: *['\"]([^'\"]+)", (published() / "categories.mjs").read_text()))
    assert len(units) > 200
    assert set(dashboards.UNITS) <= units


def test_a_row_without_panels_is_not_drawn() -> None:
    found = declared("r", document(panel(role="redis")))
    assert grafana(found, [])["panels"] == []
    assert grafana(replace(found, rows=()), [])["panels"] == []
