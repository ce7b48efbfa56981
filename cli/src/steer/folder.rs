//! A folder of files: its objects, and the change of one of them that replaces one file in one step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use weft_api::{FieldPath, Located, Problem, Step};
use weft_control_plane::model::MeshConfig;
use weft_control_plane::sources::{build, manifests_of};

use super::Wrong;
use super::plan::Plan;
use super::world::{Kind, World, name_of, namespace_of};

/// The files as they were read.
pub(crate) struct Folder {
    path: PathBuf,
    texts: BTreeMap<PathBuf, String>,
}

/// A change of one file.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) file: PathBuf,
    /// `None` if the file is new.
    pub(super) before: Option<String>,
    /// `None` if the file goes.
    pub(super) after: Option<String>,
    pub(super) notes: Vec<String>,
}

impl Folder {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let cannot = |what: &Path| {
            format!("cannot read {}; name a folder of YAML files that this user may read", what.display())
        };
        let mut texts = BTreeMap::new();
        for file in manifests_of(path).with_context(|| cannot(path))? {
            let text = std::fs::read_to_string(&file).with_context(|| cannot(&file))?;
            texts.insert(file, text);
        }
        Ok(Self { path: path.to_owned(), texts })
    }

    /// The objects of these kinds.
    pub(super) fn world(&self, kinds: &[Kind]) -> World {
        let documents = self.texts.values().flat_map(|text| documents(text)).filter_map(parse);
        let is_wanted = |object: &Value| kinds.iter().any(|kind| object["kind"] == kind.name);
        World { objects: documents.filter(is_wanted).collect(), namespace: None }
    }

    /// The edit that makes a plan true. What the folder would mean then is judged as the control plane does.
    pub(super) fn edit(&self, plan: &Plan) -> anyhow::Result<Edit> {
        let mut edit = self.edit_of(plan)?;
        if edit.before == edit.after {
            return Ok(edit);
        }
        let now = self.problems(|_, text| Some(text.to_owned()), None);
        let new = edit.before.is_none().then_some(()).and(edit.after.as_deref()).map(|text| (&*edit.file, text));
        let then =
            self.problems(|file, text| if file == edit.file { edit.after.clone() } else { Some(text.to_owned()) }, new);
        let same = |a: &Problem, b: &Problem| (&a.object, &a.field, &a.why) == (&b.object, &b.field, &b.why);
        let is_new = |problem: &&Problem| !now.iter().any(|known| same(known, problem));
        if let Some(error) = then.iter().filter(|problem| problem.is_error()).min_by_key(|problem| !is_new(problem)) {
            let whose = if is_new(&error) { "the folder would be refused" } else { "the folder is refused as it is" };
            return Err(Wrong::because(format!("{whose}: {error}")));
        }
        edit.notes.extend(then.iter().filter(is_new).map(ToString::to_string));
        Ok(edit)
    }

    fn edit_of(&self, plan: &Plan) -> anyhow::Result<Edit> {
        let Some(object) = plan.before.as_ref() else {
            return self.new_file(plan);
        };
        let is_it = |document: &str| {
            parse(document).is_some_and(|known| {
                known["kind"] == object["kind"]
                    && namespace_of(&known) == namespace_of(object)
                    && name_of(&known) == name_of(object)
            })
        };
        let (file, text) = self
            .texts
            .iter()
            .find(|(_, text)| documents(text).any(is_it))
            .with_context(|| format!("{} is in no file of the folder", plan.name()))?;
        let before = Some(text.clone());
        let parts: Vec<_> = documents(text).collect();
        let has_others = parts.iter().filter(|document| parse(document).is_some()).nth(1).is_some();
        let mut notes = Vec::new();
        let mut after = Some(String::new());
        for part in parts {
            match (&mut after, &plan.after) {
                (Some(after), _) if !is_it(part) => after.push_str(part),
                (Some(after), Some(wanted)) => after.push_str(&rewrite(file, part, object, wanted, &mut notes)?),
                (Some(_), None) if has_others => {}
                _ => after = None,
            }
        }
        Ok(Edit { file: file.clone(), before, after, notes })
    }

    fn new_file(&self, plan: &Plan) -> anyhow::Result<Edit> {
        let after = plan.after.as_ref().map(serde_yaml_ng::to_string).transpose()?;
        let name = plan.after.as_ref().map(name_of).unwrap_or_default();
        let stem = format!("{name}-{}", plan.kind.name.to_ascii_lowercase());
        let names = std::iter::once(format!("{stem}.yaml")).chain((2..).map(|n| format!("{stem}-{n}.yaml")));
        let mut free = names.map(|name| self.path.join(name)).filter(|path| !path.exists());
        // The names never end.
        let file = free.next().unwrap_or_default();
        Ok(Edit { file, before: None, after, notes: Vec::new() })
    }

    /// What is wrong with the folder if its files read so.
    fn problems(&self, read: impl Fn(&Path, &str) -> Option<String>, new: Option<(&Path, &str)>) -> Vec<Problem> {
        let (mut objects, mut problems): (Vec<Located>, Vec<Problem>) = Default::default();
        let texts = self.texts.iter().filter_map(|(file, text)| Some((&**file, read(file, text)?)));
        for (file, text) in texts.chain(new.map(|(file, text)| (file, text.to_owned()))) {
            let manifest = weft_api::parse(&super::target::below(&self.path, file).display().to_string(), &text);
            objects.extend(manifest.objects);
            problems.extend(manifest.problems);
        }
        if !problems.iter().any(Problem::is_error) {
            match build(&objects, &Arc::new(MeshConfig::default()), None) {
                Ok(built) => problems.extend(built.warnings),
                Err(more) => problems.extend(more),
            }
        }
        problems
    }
}

impl Edit {
    /// Puts the new text in the old one's place, or does nothing if somebody else has changed it meanwhile. A reader sees one of the two,
    /// and so does whoever comes after this process was killed.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        // A link's file is replaced, not the link.
        let file = std::fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        let cannot = || format!("cannot change {}; make its folder writable for this user", file.display());
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Two commands at once: the second one finds what the first one wrote.
        let lock = File::open(folder).with_context(cannot)?;
        lock.lock().with_context(cannot)?;
        let now = match std::fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(cannot),
        };
        if now != self.before {
            return Err(Wrong::because(format!(
                "{} was changed meanwhile, so nothing is done; run the command again",
                self.file.display()
            )));
        }
        let Some(text) = &self.after else { return std::fs::remove_file(&file).with_context(cannot) };
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A name that the control plane does not read. What a killed command left there is overwritten.
        let draft = folder.join(format!(".{name}.weft"));
        let mode = std::fs::metadata(&file).map_or(0o644, |known| known.permissions().mode());
        let written = File::create(&draft).and_then(|mut out| {
            out.set_permissions(std::fs::Permissions::from_mode(mode))?;
            out.write_all(text.as_bytes())?;
            out.sync_all()
        });
        written.and_then(|()| std::fs::rename(&draft, &file)).with_context(cannot)
    }

    pub(super) fn done(&self) -> String {
        let file = self.file.display();
        match (&self.before, &self.after) {
            (None, _) => format!("made {file}"),
            (_, None) => format!("removed {file}"),
            _ => format!("changed {file}"),
        }
    }
}

/// The text of one document that says what `wanted` says: with single values replaced where that is enough, else written anew below the
/// comments that it begins with.
fn rewrite(
    file: &Path,
    document: &str,
    object: &Value,
    wanted: &Value,
    notes: &mut Vec<String>,
) -> anyhow::Result<String> {
    let mut edits = Vec::new();
    if changed_values(object, wanted, &FieldPath::root(), &mut edits)
        && let Some(text) = weft_api::replace_values(document, &edits)
        && parse(&text).as_ref() == Some(wanted)
    {
        return Ok(text);
    }
    if file.extension().is_some_and(|end| end == "json") {
        return Ok(serde_json::to_string_pretty(wanted)? + "\n");
    }
    let is_aside = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    let lines: Vec<_> = document.split_inclusive('\n').collect();
    let head = lines.iter().take_while(|line| is_aside(line)).count();
    let tail = lines[head..].iter().rev().take_while(|line| is_aside(line)).count();
    let body = &lines[head..lines.len() - tail];
    if body.iter().any(|line| line.contains(" #") || line.trim_start().starts_with('#')) {
        notes.push(format!("comments inside the object are lost in {}", file.display()));
    }
    let mut text = lines[..head].concat();
    text.push_str(&serde_yaml_ng::to_string(wanted)?);
    text.push_str(&lines[lines.len() - tail..].concat());
    Ok(text)
}

/// The single values that differ; false if more than that does.
fn changed_values(old: &Value, new: &Value, at: &FieldPath, edits: &mut Vec<(FieldPath, String)>) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.len() == new.len()
                && old.iter().all(|(key, old)| {
                    new.get(key).is_some_and(|new| changed_values(old, new, &at.key(key.clone()), edits))
                })
        }
        (Value::Array(old), Value::Array(new)) => {
            let mut pairs = old.iter().zip(new).enumerate();
            old.len() == new.len()
                && pairs.all(|(index, (old, new))| changed_values(old, new, &at.then(Step::Index(index)), edits))
        }
        (old, new) if old == new => true,
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => false,
        (_, new) => {
            edits.push((at.clone(), scalar(new)));
            true
        }
    }
}

/// A single value in YAML: JSON is YAML, and plain words and durations need no quotes.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && serde_yaml_ng::from_str::<Value>(text).is_ok_and(|read| read == *text)
}

/// The documents of a file, with the lines that divide them: together they are the file.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let mut starts: Vec<usize> = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        // No scalar holds such a line (YAML 1.2, 9.1.2).
        if at > 0
            && line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(text.len());
    (1..starts.len()).map(move |end| &text[starts[end - 1]..starts[end]])
}

/// The object of a document; nothing where it has none.
fn parse(document: &str) -> Option<Value> {
    serde_yaml_ng::from_str::<Value>(document).ok().filter(Value::is_object)
}
