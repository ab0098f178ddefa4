# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role shows of itself: ``monitoring/dashboard.yml`` beside its tasks, checked, put in one form, and drawn for Grafana and the status page.

A declaration says what is shown: questions to Prometheus, units, what is good and what is bad. Nothing in it is Grafana's, so that other pages can be
drawn from it. Data source, places, numbers and colours are added here, by :func:`grafana`; what the status page draws is given by :func:`page`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.monitoring import DeclarationError, checked_section

NAME = re.compile(r"[a-z][a-z0-9_]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
PLACEHOLDER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")
VARIABLE = re.compile(r"\$(\w*)")

KINDS = ("timeseries", "stat", "gauge", "table", "heatmap", "state")
LEVELS = ("good", "warning", "critical", "neutral")
UNITS: Mapping[str, str] = {
    "none": "a number as it is",
    "short": "a number, large ones as 1.5 Mil",
    "percentunit": "a share, from 0 to 1",
    "bytes": "bytes, by 1024",
    "Bps": "bytes a second, by 1024",
    "s": "seconds",
    "ms": "milliseconds",
    "d": "days",
    "dtdurations": "seconds, as 2 days 3 hours",
    "reqps": "requests a second",
    "ops": "operations a second",
    "mps": "messages a second",
    "pps": "packets a second",
    "cps": "anything else a second",
    "celsius": "degrees Celsius",
    "watt": "watts",
}
"""Units by Grafana's names. A name that Grafana does not know is shown behind the number, and the number is not scaled."""

WIDTH = 24
"""Columns of the grid that panels lie on."""

SIZES: Mapping[str, tuple[int, int]] = {
    "timeseries": (12, 8),
    "stat": (4, 4),
    "gauge": (4, 5),
    "table": (WIDTH, 8),
    "heatmap": (12, 8),
    "state": (WIDTH, 8),
}
"""Columns and lines of a panel that says nothing else, by its kind."""

TAG = "sovereign.dify"
SCHEMA_VERSION = 39
"""That of Grafana 11. Newer ones bring it up to their own when they load a dashboard."""

COLOURS: Mapping[str, str] = {"good": "green", "warning": "orange", "critical": "red", "neutral": "text"}


@dataclass(frozen=True)
class Thresholds:
    """From where on a value is bad.

    Attributes:
        below: Whether it is bad below them (days that are left) and not from them on (a share that is used).
        warning: Where it begins to be bad, or nothing.
        critical: Where it is worse, or nothing.
    """

    below: bool
    warning: float | None
    critical: float | None


@dataclass(frozen=True)
class State:
    """What one value of a series means.

    Attributes:
        text: What is shown instead.
        level: One of ``LEVELS``.
    """

    text: str
    level: str


@dataclass(frozen=True)
class Query:
    """A question to Prometheus.

    Attributes:
        expr: The question. ``=~"$name"`` stands for what is selected of a variable, which is everything where nothing can be selected.
        legend: Name of a series, with ``{label}`` for the value of a label; of a table, the heading of the column.
        unit: Unit of this column of a table.
        thresholds: Thresholds of this column.
        states: What values of this column mean.
    """

    expr: str
    legend: str
    unit: str
    thresholds: Thresholds | None
    states: Mapping[float, State]


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: Its title.
        description: What it shows, where the title does not say it all.
        kind: One of ``KINDS``. A ``state`` shows one line a series, with a colour for each value of it.
        unit: One of ``UNITS``; of a heatmap, that of the buckets.
        queries: What is asked.
        thresholds: From where on values are bad.
        states: What values mean.
        columns: Headings of a table's columns, by the labels that they show.
        sort: Heading of the column that a table is sorted by; the largest first behind ``-``.
        width: Columns of the grid.
        height: Lines of the grid.
        minimum: Where the axis begins, or nothing.
        maximum: Where it ends, or nothing.
        decimals: Decimals of a number, or nothing.
        stack: Whether series lie on each other, because their sum means something.
        role: Role that it is about, or nothing. It is left out where a site does not have the role, and leads to that role's dashboard.
    """

    title: str
    description: str
    kind: str
    unit: str
    queries: tuple[Query, ...]
    thresholds: Thresholds | None
    states: Mapping[float, State]
    columns: Mapping[str, str]
    sort: str
    width: int
    height: int
    minimum: float | None
    maximum: float | None
    decimals: int | None
    stack: bool
    role: str


@dataclass(frozen=True)
class Row:
    """Panels under one heading.

    Attributes:
        title: The heading.
        role: Role that it is about, or nothing; as of a panel.
        panels: Its panels.
    """

    title: str
    role: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """What a reader can select.

    Attributes:
        name: Its name.
        title: What it is called on the page.
        series: Selector of series.
        label: Label of these series whose values can be selected.
    """

    name: str
    title: str
    series: str
    label: str


@dataclass(frozen=True)
class Dashboard:
    """What a role shows of itself.

    Attributes:
        role: Name of the role.
        title: Its title.
        description: What it is for.
        variables: What a reader can select.
        rows: Its rows.
    """

    role: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]


def declared(role: str, document: object) -> Dashboard:
    """Read what a role declares.

    Args:
        role: Name of the role.
        document: Content of its ``monitoring/dashboard.yml``.

    Returns:
        The dashboard.

    Raises:
        DeclarationError: The document is none; the text says where, and how to mend it.
    """
    top = checked_section(document, role, {"title", "description", "variables", "rows"}, {"title", "rows"})
    found = Dashboard(
        role=role,
        title=_text(top, "title", role),
        description=_text(top, "description", role),
        variables=tuple(_variable(f"{role}: variables.{name}", str(name), value) for name, value in _mapping(top, "variables", role).items()),
        rows=tuple(_row(f"{role}: rows[{number}]", value) for number, value in enumerate(_list(top, "rows", role), 1)),
    )
    titles: set[str] = set()
    for row in found.rows:
        for panel in row.panels:
            if panel.title in titles:
                raise DeclarationError(f"{role}: two panels have the title {panel.title!r}: give each its own")
            titles.add(panel.title)
    _variables_in_use(found)
    return found


def shown(dashboard: Dashboard, roles: Collection[str]) -> list[Row]:
    """Give the rows and panels that a site has something for.

    Args:
        dashboard: The dashboard.
        roles: Roles of the site that have a dashboard.
    """
    kept = []
    for row in dashboard.rows:
        panels = tuple(panel for panel in row.panels if not panel.role or panel.role in roles)
        if panels and (not row.role or row.role in roles):
            kept.append(Row(row.title, row.role, panels))
    return kept


def uid(role: str) -> str:
    """Give the name by which addresses in Grafana contain a role's dashboard."""
    return f"sovereign-{role.replace('_', '-')}"


def grafana(dashboard: Dashboard, roles: Collection[str]) -> dict[str, Any]:
    """Draw a dashboard for Grafana, 11 and later.

    Args:
        dashboard: The dashboard.
        roles: Roles of the site that have a dashboard.

    Returns:
        Grafana's model of a dashboard, as its provisioning reads it from a file of JSON.
    """
    return {
        "uid": uid(dashboard.role),
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG, dashboard.role],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [_link("Dashboards", "dashboards", tags=[TAG])],
        "templating": {"list": [_source_variable(), *(_query_variable(variable) for variable in dashboard.variables)]},
        "annotations": {"list": []},
        "panels": list(_panels(dashboard, roles)),
    }


def page(dashboard: Dashboard, roles: Collection[str]) -> dict[str, Any]:
    """Give a dashboard as the status page draws it: what is declared, in one form and without what is empty.

    Args:
        dashboard: The dashboard.
        roles: Roles of the site that have a dashboard.

    Returns:
        ``role``, ``title``, ``description``, ``variables`` and ``rows``, whose ``panels`` have the attributes of :class:`Panel`. ``states`` and
        ``columns`` are lists, since JSON keeps no order of keys that are numbers.
    """
    return {
        "role": dashboard.role,
        "title": dashboard.title,
        "description": dashboard.description,
        "variables": [asdict(variable) for variable in dashboard.variables],
        "rows": [{"title": row.title, "panels": [_of_page(panel) for panel in row.panels]} for row in shown(dashboard, roles)],
    }


# --- Reading ---------------------------------------------------------------------------------------------------------------------------------------


def _row(where: str, value: object) -> Row:
    section = checked_section(value, where, {"title", "role", "panels"}, {"title", "panels"})
    title = _text(section, "title", where)
    panels = tuple(_panel(f"{where} ({title}).panels[{number}]", one) for number, one in enumerate(_list(section, "panels", where), 1))
    if not panels:
        raise DeclarationError(f"{where}.panels: give one panel at least")
    return Row(title, _text(section, "role", where), panels)


PANEL_KEYS = frozenset(
    {
        *("title", "description", "kind", "unit", "queries", "thresholds", "states", "columns", "sort", "width", "height", "min", "max", "decimals"),
        *("stack", "role"),
    }
)


def _panel(where: str, value: object) -> Panel:
    section = checked_section(value, where, PANEL_KEYS, {"title", "kind", "queries"})
    title = _text(section, "title", where)
    where = f"{where} ({title})"
    kind = _one_of(section, "kind", where, KINDS)
    width, height = SIZES[kind]
    panel = Panel(
        title=title,
        description=_text(section, "description", where),
        kind=kind,
        unit=_unit(section, where) or "none",
        queries=tuple(_query(f"{where}.queries[{number}]", one, kind) for number, one in enumerate(_list(section, "queries", where), 1)),
        thresholds=_thresholds(section, where),
        states=_states(section, where),
        columns={str(label): str(heading) for label, heading in _mapping(section, "columns", where).items()},
        sort=_text(section, "sort", where),
        width=_whole(section, "width", where, WIDTH) or width,
        height=_whole(section, "height", where, 40) or height,
        minimum=_number(section, "min", where),
        maximum=_number(section, "max", where),
        decimals=_whole(section, "decimals", where, 6),
        stack=section.get("stack") is True,
        role=_text(section, "role", where),
    )
    _fit(where, panel)
    return panel


def _fit(where: str, panel: Panel) -> None:
    """Refuse what a kind of panel lacks, or has no use for."""
    if not panel.queries:
        raise DeclarationError(f"{where}.queries: give one query at least")
    legends = [query.legend for query in panel.queries]
    if panel.kind in ("timeseries", "state", "table") or (panel.kind != "heatmap" and len(legends) > 1):
        for number, legend in enumerate(legends, 1):
            if not legend:
                raise DeclarationError(f"{where}.queries[{number}].legend: required: without it nobody knows what is what")
    if len(set(legends)) != len(legends):
        raise DeclarationError(f"{where}.queries: two of them have the same legend")
    if panel.kind == "heatmap" and len(legends) > 1:
        raise DeclarationError(f"{where}.queries: a heatmap shows one query, which gives the buckets of one histogram by le")
    if panel.kind == "state" and not panel.states:
        raise DeclarationError(f"{where}.states: required: say what the values mean, as in {{0: [down, critical], 1: [up, good]}}")
    if panel.kind == "gauge" and panel.maximum is None and panel.unit != "percentunit":
        raise DeclarationError(f"{where}.max: required: a gauge shows how much there is of that")
    if (panel.columns or panel.sort) and panel.kind != "table":
        raise DeclarationError(f"{where}.{'columns' if panel.columns else 'sort'}: only tables have columns; make it kind: table, or take it away")
    if panel.stack and panel.kind != "timeseries":
        raise DeclarationError(f"{where}.stack: only series over time can lie on each other; make it kind: timeseries, or take it away")
    if panel.kind == "table":
        headings = [*panel.columns.values(), *legends]
        if len(set(headings)) != len(headings):
            raise DeclarationError(f"{where}.columns: two columns have the same heading")
        if panel.sort and panel.sort.removeprefix("-") not in headings:
            raise DeclarationError(f"{where}.sort: {panel.sort!r} is no heading of a column; there are {', '.join(headings)}")
        for label in panel.columns:
            if not LABEL.fullmatch(label):
                raise DeclarationError(f"{where}.columns: {label!r} is no name of a label")


def _query(where: str, value: object, kind: str) -> Query:
    section = checked_section(value, where, {"expr", "legend", "unit", "thresholds", "states"}, {"expr"})
    expr = _text(section, "expr", where)
    if fault := expression_fault(expr):
        raise DeclarationError(f"{where}.expr: {fault}: {expr}")
    legend = _text(section, "legend", where)
    if "{" in PLACEHOLDER.sub("", legend) or "}" in PLACEHOLDER.sub("", legend):
        raise DeclarationError(f"{where}.legend: {legend!r}: write {{label}} for the value of a label")
    if kind != "table" and (only := sorted({"unit", "thresholds", "states"} & set(section))):
        raise DeclarationError(f"{where}.{only[0]}: only a column of a table has one of its own; give it to the panel")
    return Query(expr, legend, _unit(section, where), _thresholds(section, where), _states(section, where))


def _variable(where: str, name: str, value: object) -> Variable:
    if not NAME.fullmatch(name):
        raise DeclarationError(f"{where}: use lower-case letters, digits and '_', a letter first")
    section = checked_section(value, where, {"title", "series", "label"}, {"series"})
    series, label = _text(section, "series", where), _text(section, "label", where) or name
    if fault := expression_fault(series):
        raise DeclarationError(f"{where}.series: {fault}: {series}")
    return Variable(name, _text(section, "title", where) or name.capitalize(), series, label)


def _variables_in_use(dashboard: Dashboard) -> None:
    known = {variable.name for variable in dashboard.variables}
    used: set[str] = set()
    exprs = [query.expr for row in dashboard.rows for panel in row.panels for query in panel.queries]
    for expr in [*exprs, *(variable.series for variable in dashboard.variables)]:
        for found in VARIABLE.finditer(expr):
            if found[1] not in known:
                raise DeclarationError(f"{dashboard.role}: ${found[1]} is no variable; known are {', '.join(sorted(known)) or 'none'}: {expr}")
            if not re.search(r'=~\s*"$', expr[: found.start()]) or expr[found.end() : found.end() + 1] != '"':
                raise DeclarationError(f'{dashboard.role}: write =~"${found[1]}": more than one value can be selected: {expr}')
            used.add(found[1])
    if unused := sorted(known - used):
        raise DeclarationError(f"{dashboard.role}: variables.{unused[0]}: no query has it; take it away")


def expression_fault(expr: str) -> str:
    """Say what is wrong with a question to Prometheus as far as brackets and quotes show it; nothing if they are right."""
    closing = {"(": ")", "[": "]", "{": "}"}
    opened: list[str] = []
    quote, skip = "", False
    for character in expr:
        if skip:
            skip = False
        elif quote:
            skip = character == "\\" and quote != "`"
            quote = "" if character == quote else quote
        elif character in "\"'`":
            quote = character
        elif character in closing:
            opened.append(character)
        elif character in closing.values() and (not opened or closing[opened.pop()] != character):
            return f"{character} closes nothing"
    if quote:
        return f"{quote} is not closed"
    if opened:
        return f"{opened[-1]} is not closed"
    return "" if expr.strip() else "it is empty"


def _thresholds(section: Mapping[str, Any], where: str) -> Thresholds | None:
    given = _mapping(section, "thresholds", where)
    if not given:
        return None
    where = f"{where}.thresholds"
    if set(given) not in ({"above"}, {"below"}):
        raise DeclarationError(f"{where}: give above (bad from there on) or below (bad under it), as in {{above: {{warning: 0.8, critical: 0.95}}}}")
    side = str(next(iter(given)))
    levels = checked_section(given[side], f"{where}.{side}", {"warning", "critical"})
    warning, critical = _number(levels, "warning", f"{where}.{side}"), _number(levels, "critical", f"{where}.{side}")
    if warning is None and critical is None:
        raise DeclarationError(f"{where}.{side}: give warning, critical, or both")
    if warning is not None and critical is not None and (critical >= warning if side == "below" else critical <= warning):
        raise DeclarationError(f"{where}.{side}: critical must be {'below' if side == 'below' else 'above'} warning")
    return Thresholds(side == "below", warning, critical)


def _states(section: Mapping[str, Any], where: str) -> dict[float, State]:
    found = {}
    for value, said in _mapping(section, "states", where).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DeclarationError(f"{where}.states: {value!r} is no number")
        text, level = (said, "neutral") if isinstance(said, str) else said if isinstance(said, list) and len(said) == 2 else ("", "")
        if not isinstance(text, str) or not text or level not in LEVELS:
            raise DeclarationError(f"{where}.states.{value}: give a text, or a text and one of {', '.join(LEVELS)}, as in [down, critical]")
        found[float(value)] = State(text, level)
    return found


def _unit(section: Mapping[str, Any], where: str) -> str:
    unit = _text(section, "unit", where)
    if unit and unit not in UNITS:
        raise DeclarationError(f"{where}.unit: {unit!r} is no unit; known are {', '.join(UNITS)}")
    return unit


def _mapping(section: Mapping[str, Any], key: str, where: str) -> Mapping[Any, Any]:
    value = section.get(key, {})
    if not isinstance(value, Mapping):
        raise DeclarationError(f"{where}.{key}: give a mapping")
    return value


def _list(section: Mapping[str, Any], key: str, where: str) -> Sequence[object]:
    value = section.get(key, [])
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DeclarationError(f"{where}.{key}: give a list")
    return value


def _text(section: Mapping[str, Any], key: str, where: str) -> str:
    value = section.get(key, "")
    if not isinstance(value, str):
        raise DeclarationError(f"{where}.{key}: {value!r} is no text; put it in quotes")
    return value.strip()


def _one_of(section: Mapping[str, Any], key: str, where: str, known: Sequence[str]) -> str:
    value = _text(section, key, where)
    if value not in known:
        raise DeclarationError(f"{where}.{key}: {value!r} is none of {', '.join(known)}")
    return value


def _number(section: Mapping[str, Any], key: str, where: str) -> float | None:
    value = section.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise DeclarationError(f"{where}.{key}: {value!r} is no number")
    return value


def _whole(section: Mapping[str, Any], key: str, where: str, largest: int) -> int | None:
    value = _number(section, key, where)
    if value is not None and (not isinstance(value, int) or not 0 <= value <= largest):
        raise DeclarationError(f"{where}.{key}: {value!r} is no whole number up to {largest}")
    return None if value is None else int(value)


# --- Drawing for the status page -------------------------------------------------------------------------------------------------------------------


def _of_page(panel: Panel) -> dict[str, Any]:
    columns = [{"label": label, "heading": heading} for label, heading in panel.columns.items()]
    found = {**asdict(panel), "columns": columns, "states": _listed(panel.states), "queries": [_asked(query) for query in panel.queries]}
    return _filled(found)


def _asked(query: Query) -> dict[str, Any]:
    return _filled({**asdict(query), "states": _listed(query.states)})


def _listed(states: Mapping[float, State]) -> list[dict[str, Any]]:
    return [{"value": value, "text": state.text, "level": state.level} for value, state in states.items()]


def _filled(section: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing; 0 says something."""
    return {key: value for key, value in section.items() if value is not None and value is not False and value not in ("", [])}


# --- Drawing for Grafana ---------------------------------------------------------------------------------------------------------------------------

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ALL = "$__all"


def _source_variable() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
    }


def _query_variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({variable.series}, {variable.label})", "refId": variable.name},
        "hide": 0,
        "includeAll": True,
        # Nothing selected: also series that lack the label.
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": [ALL]},
        "refresh": 2,
        "sort": 1,
    }


def _link(title: str, kind: str, tags: Sequence[str] = (), url: str = "") -> dict[str, Any]:
    return {
        "title": title,
        "type": kind,
        "tags": list(tags),
        "url": url,
        "icon": "external link",
        "tooltip": "",
        "asDropdown": kind == "dashboards",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }


def _panels(dashboard: Dashboard, roles: Collection[str]) -> Iterator[dict[str, Any]]:
    """Number panels, and lay them out: one beside the other, as many as have room, each line as high as its highest."""
    number, y = 0, 0
    for row in shown(dashboard, roles):
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
            "panels": [],
        }
        y += 1
        for line in _lines(row.panels):
            x, height = 0, max(panel.height for panel in line)
            for panel in line:
                number += 1
                leads_to = panel.role or row.role
                yield {
                    "id": number,
                    **_drawn(panel),
                    "gridPos": {"h": height, "w": panel.width, "x": x, "y": y},
                    "links": [_link(f"More of {leads_to}", "link", url=f"/d/{uid(leads_to)}")] if leads_to not in ("", dashboard.role) else [],
                }
                x += panel.width
            y += height


def _lines(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    line: list[Panel] = []
    for panel in panels:
        if line and sum(one.width for one in line) + panel.width > WIDTH:
            yield line
            line = []
        line.append(panel)
    yield line


def _drawn(panel: Panel) -> dict[str, Any]:
    draw = {"timeseries": _timeseries, "stat": _stat, "gauge": _gauge, "table": _table, "heatmap": _heatmap, "state": _state}[panel.kind]
    return {
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [_target(query, refid, panel.kind) for query, refid in zip(panel.queries, _refids(panel), strict=True)],
        **draw(panel),
    }


def _refids(panel: Panel) -> list[str]:
    return [chr(ord("A") + number) for number in range(len(panel.queries))]


def _target(query: Query, refid: str, kind: str) -> dict[str, Any]:
    instant = kind in ("stat", "gauge", "table")
    legend = "{{le}}" if kind == "heatmap" else PLACEHOLDER.sub(r"{{\1}}", query.legend)
    return {
        "refId": refid,
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "format": {"table": "table", "heatmap": "heatmap"}.get(kind, "time_series"),
        "instant": instant,
        "range": not instant,
        "legendFormat": legend or "__auto",
    }


def _steps(thresholds: Thresholds | None, base: str = "good") -> dict[str, Any]:
    """Colours from values on; the first one from minus infinity on."""
    steps: list[tuple[str, float | None]]
    if thresholds is None:
        steps = [("neutral", None)]
    elif thresholds.below:
        levels = [(level, value) for level, value in (("critical", thresholds.critical), ("warning", thresholds.warning)) if value is not None]
        steps = list(zip([*(level for level, dummy in levels), base], [None, *(value for dummy, value in levels)], strict=True))
    else:
        steps = [(base, None)]
        steps += [(level, value) for level, value in (("warning", thresholds.warning), ("critical", thresholds.critical)) if value is not None]
    return {"mode": "absolute", "steps": [{"color": COLOURS[level], "value": value} for level, value in steps]}


def _mappings(states: Mapping[float, State]) -> list[dict[str, Any]]:
    if not states:
        return []
    options = {
        f"{value:g}": {"text": state.text, "color": COLOURS[state.level], "index": number} for number, (value, state) in enumerate(states.items())
    }
    return [{"type": "value", "options": options}]


def _defaults(panel: Panel, colour: str, **more: object) -> dict[str, Any]:
    """What holds for all series of a panel."""
    bounds = {"min": panel.minimum, "max": panel.maximum, "decimals": panel.decimals}
    return {
        "unit": panel.unit,
        "color": {"mode": colour},
        "thresholds": _steps(panel.thresholds),
        "mappings": _mappings(panel.states),
        **{key: value for key, value in bounds.items() if value is not None},
        **more,
    }


def _legend() -> dict[str, Any]:
    return {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}


def _timeseries(panel: Panel) -> dict[str, Any]:
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stack else 10,
        "showPoints": "never",
        "spanNulls": False,
        "axisSoftMin": 0,
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if panel.thresholds else "off"},
    }
    return {
        "type": "timeseries",
        "fieldConfig": {"defaults": _defaults(panel, "palette-classic", custom=custom), "overrides": []},
        "options": {"legend": _legend(), "tooltip": {"mode": "multi", "sort": "desc"}},
    }


def _reduced() -> dict[str, Any]:
    return {"values": False, "calcs": ["lastNotNull"], "fields": ""}


def _stat(panel: Panel) -> dict[str, Any]:
    return {
        "type": "stat",
        "fieldConfig": {"defaults": _defaults(panel, "thresholds"), "overrides": []},
        "options": {
            "reduceOptions": _reduced(),
            "orientation": "auto",
            "colorMode": "background" if panel.thresholds or panel.states else "none",
            "graphMode": "none",
            "justifyMode": "auto",
            "textMode": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
    }


def _gauge(panel: Panel) -> dict[str, Any]:
    ends = {"min": 0 if panel.minimum is None else panel.minimum, "max": 1 if panel.maximum is None else panel.maximum}
    return {
        "type": "gauge",
        "fieldConfig": {"defaults": _defaults(panel, "thresholds", **ends), "overrides": []},
        "options": {
            "reduceOptions": _reduced(),
            "orientation": "auto",
            "showThresholdLabels": False,
            "showThresholdMarkers": True,
            "sizing": "auto",
            "minVizHeight": 75,
            "minVizWidth": 75,
        },
    }


def _state(panel: Panel) -> dict[str, Any]:
    return {
        "type": "state-timeline",
        "fieldConfig": {"defaults": _defaults(panel, "thresholds", custom={"fillOpacity": 80, "lineWidth": 0}), "overrides": []},
        "options": {
            "legend": _legend(),
            "tooltip": {"mode": "single", "sort": "none"},
            "showValue": "never",
            "rowHeight": 0.85,
            "mergeValues": True,
            "alignValue": "left",
        },
    }


def _heatmap(panel: Panel) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "fieldConfig": {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}}, "overrides": []},
        "options": {
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": "short"},
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "fill": "dark-orange",
                "exponent": 0.5,
                "scale": "exponential",
                "reverse": False,
                "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "unit": panel.unit, "reverse": False},
        },
    }


def _table(panel: Panel) -> dict[str, Any]:
    values = ["Value"] if len(panel.queries) == 1 else [f"Value #{refid}" for refid in _refids(panel)]
    headings = {**panel.columns, **dict(zip(values, (query.legend for query in panel.queries), strict=True))}
    sort = [{"displayName": panel.sort.removeprefix("-"), "desc": panel.sort.startswith("-")}] if panel.sort else []
    return {
        "type": "table",
        "fieldConfig": {
            "defaults": {"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}},
            "overrides": [_column(panel, query) for query in panel.queries],
        },
        "options": {"showHeader": True, "cellHeight": "sm", "sortBy": sort},
        # Lines with the same labels become one; of their fields those are kept that have a heading, in the order in which they are declared.
        "transformations": [
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": {"include": {"names": list(headings)}}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {},
                    "indexByName": {name: number for number, name in enumerate(headings)},
                    "renameByName": headings,
                },
            },
        ],
    }


def _column(panel: Panel, query: Query) -> dict[str, Any]:
    thresholds, states = query.thresholds or panel.thresholds, query.states or panel.states
    properties: list[dict[str, Any]] = [{"id": "unit", "value": query.unit or panel.unit}]
    if panel.decimals is not None:
        properties.append({"id": "decimals", "value": panel.decimals})
    if thresholds:
        properties.append({"id": "thresholds", "value": _steps(thresholds, "neutral")})
    if states:
        properties.append({"id": "mappings", "value": _mappings(states)})
    if thresholds or states:
        properties += [
            {"id": "color", "value": {"mode": "thresholds"}},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        ]
    return {"matcher": {"id": "byName", "options": query.legend}, "properties": properties}
