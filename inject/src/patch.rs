//! The difference of two documents, as a JSON patch.

use serde_json::{Map, Value, json};

/// The JSON patch (RFC 6902) that makes `after` of `before`; empty when they are the same. Objects are compared member by member, lists are
/// replaced as a whole: what others add to a list between admission webhooks is in `before`, so nothing of it is lost.
///
/// ```
/// use serde_json::json;
/// let patch = weft_inject::patch(&json!({ "a": 1, "b": [1] }), &json!({ "b": [1, 2], "c/d": {} }));
/// assert_eq!(
///     serde_json::Value::from(patch),
///     json!([
///         { "op": "remove", "path": "/a" },
///         { "op": "replace", "path": "/b", "value": [1, 2] },
///         { "op": "add", "path": "/c~1d", "value": {} },
///     ]),
/// );
/// ```
#[must_use]
pub fn patch(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    compare(&mut operations, "", before, after);
    operations
}

fn compare(operations: &mut Vec<Value>, path: &str, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => members(operations, path, before, after),
        _ if before == after => {}
        _ => operations.push(json!({ "op": "replace", "path": path, "value": after })),
    }
}

fn members(operations: &mut Vec<Value>, path: &str, before: &Map<String, Value>, after: &Map<String, Value>) {
    for (name, old) in before {
        let path = format!("{path}/{}", escape(name));
        match after.get(name) {
            Some(new) => compare(operations, &path, old, new),
            None => operations.push(json!({ "op": "remove", "path": path })),
        }
    }
    for (name, new) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        let path = format!("{path}/{}", escape(name));
        operations.push(json!({ "op": "add", "path": path, "value": new }));
    }
}

/// A member's name in a JSON pointer (RFC 6901 §3).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_to_be_done_where_nothing_differs() {
        let pod = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "app" }] } });
        assert!(patch(&pod, &pod).is_empty());
    }

    #[test]
    fn a_map_that_was_not_there_is_added_as_a_whole() {
        let patch = patch(&json!({ "metadata": {} }), &json!({ "metadata": { "labels": { "weft.mesh/x": "y" } } }));
        let expected = json!({ "op": "add", "path": "/metadata/labels", "value": { "weft.mesh/x": "y" } });
        assert_eq!(patch, [expected]);
    }

    #[test]
    fn names_with_slashes_and_tildes_are_escaped() {
        let patch = patch(&json!({ "a/b~c": 1 }), &json!({ "a/b~c": 2 }));
        assert_eq!(patch, [json!({ "op": "replace", "path": "/a~1b~0c", "value": 2 })]);
    }
}
