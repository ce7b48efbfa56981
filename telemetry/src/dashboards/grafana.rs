//! The JSON that Grafana reads: the schema of its version 11 (`schemaVersion` 39), which later ones migrate.

use serde_json::{Map, Value, json};

use super::panel::{Kind, Link};
use super::{Dashboard, Panel, Unit, Variable};

/// What all our dashboards have in common, by which each lists the others.
const TAG: &str = "weft";

/// Columns of a row.
const COLUMNS: u64 = 24;

/// A dashboard's file.
pub(super) fn text(dashboard: &Dashboard) -> String {
    // Our own structure of strings and numbers always has a text.
    let mut text = serde_json::to_string_pretty(&json(dashboard)).unwrap_or_default();
    text.push('\n');
    text
}

fn json(dashboard: &Dashboard) -> Value {
    let variables = [data_source_variable()].into_iter().chain(dashboard.variables.iter().map(variable));
    json!({
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": { "from": "now-15m", "to": "now" },
        "timezone": "browser",
        "annotations": { "list": [] },
        "links": [{
            "type": "dashboards", "title": "Weft", "tags": [TAG], "asDropdown": true, "icon": "external link",
            "includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
        }],
        "templating": { "list": variables.collect::<Vec<_>>() },
        "panels": panels(&dashboard.panels),
    })
}

fn data_source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn data_source_variable() -> Value {
    json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "hide": 0, "includeAll": false, "multi": false, "refresh": 1, "regex": "", "options": [], "current": {},
    })
}

fn variable(variable: &Variable) -> Value {
    let definition = format!("label_values({}, {})", variable.metric, variable.values_of);
    json!({
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": data_source(),
        "definition": definition,
        "query": { "query": definition, "refId": "values" },
        // With the time range: values that are gone are offered no more.
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "includeAll": true,
        "multi": true,
        "allValue": ".*",
        "regex": "",
        "options": [],
        "current": { "text": ["All"], "value": ["$__all"] },
    })
}

/// The panels, laid out in rows from left to right.
fn panels(panels: &[Panel]) -> Vec<Value> {
    let (mut x, mut y, mut height) = (0, 0, 0);
    let place = |(index, panel): (usize, &Panel)| {
        let width = u64::from(panel.width);
        if x + width > COLUMNS {
            (x, y, height) = (0, y + height, 0);
        }
        let own = if panel.kind == Kind::Number { 4 } else { 8 };
        let position = json!({ "x": x, "y": y, "w": width, "h": own });
        x += width;
        height = height.max(own);
        json_of(panel, index + 1, position)
    };
    panels.iter().enumerate().map(place).collect()
}

fn json_of(panel: &Panel, id: usize, position: Value) -> Value {
    let mut defaults = Map::from_iter([
        ("unit".to_owned(), json!(panel.unit.grafana())),
        ("min".to_owned(), json!(0)),
        ("mappings".to_owned(), json!([])),
        ("links".to_owned(), panel.link.map_or_else(|| json!([]), |link| json!([data_link(link, panel.kind)]))),
    ]);
    if panel.unit == Unit::Share {
        defaults.insert("max".to_owned(), json!(1));
    }
    let (kind, options) = match panel.kind {
        Kind::Graph => {
            defaults.insert("color".to_owned(), json!({ "mode": "palette-classic" }));
            defaults.insert(
                "custom".to_owned(),
                json!({
                    "drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false,
                }),
            );
            (
                "timeseries",
                json!({
                    "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                    "tooltip": { "mode": "multi", "sort": "desc" },
                }),
            )
        }
        Kind::Number => {
            defaults.insert("color".to_owned(), json!({ "mode": "fixed", "fixedColor": "text" }));
            (
                "stat",
                json!({
                    "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "value",
                    "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                }),
            )
        }
        Kind::Table => {
            defaults.insert("custom".to_owned(), json!({ "align": "auto", "filterable": true }));
            ("table", json!({ "showHeader": true, "sortBy": [{ "displayName": "Value", "desc": true }] }))
        }
    };
    let mut json = json!({
        "id": id,
        "type": kind,
        "title": panel.title,
        "datasource": data_source(),
        "gridPos": position,
        "fieldConfig": { "defaults": defaults, "overrides": [] },
        "options": options,
        "targets": targets(panel),
    });
    if panel.kind == Kind::Table {
        json["transformations"] = json!([{ "id": "organize", "options": { "excludeByName": { "Time": true } } }]);
    }
    json
}

fn targets(panel: &Panel) -> Vec<Value> {
    let table = panel.kind == Kind::Table;
    let target = |(index, query): (usize, &super::Query)| {
        json!({
            "refId": char::from(b'A' + u8::try_from(index).unwrap_or_default()).to_string(),
            "datasource": data_source(),
            "editorMode": "code",
            "expr": query.expression,
            "legendFormat": query.legend,
            "format": if table { "table" } else { "time_series" },
            "instant": table,
            "range": !table,
        })
    };
    panel.queries.iter().enumerate().map(target).collect()
}

/// What a click on a series or a row opens, at the same time range.
fn data_link(link: Link, kind: Kind) -> Value {
    let label = match kind {
        Kind::Table => format!("${{__data.fields.{}}}", link.label()),
        _ => format!("${{__field.labels.{}}}", link.label()),
    };
    json!({
        "title": format!("Show {}", link.variable()),
        "url": format!("/d/{}?${{datasource:queryparam}}&var-{}={label}&${{__url_time_range}}", link.to(), link.variable()),
        "targetBlank": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboards::Moves;

    #[test]
    fn panels_fill_rows_without_overlap() {
        let graph = |title| Panel::graph(title, Unit::Count, Moves::Up);
        let panels = panels(&[graph("a"), graph("b").wide(20), graph("c").wide(4)]);
        let places: Vec<_> =
            panels.iter().map(|panel| (panel["gridPos"]["x"].clone(), panel["gridPos"]["y"].clone())).collect();
        assert_eq!(places, [(json!(0), json!(0)), (json!(0), json!(8)), (json!(20), json!(8))]);
    }
}
