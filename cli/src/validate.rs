//! `weft validate`: the control plane's own validation, without a control plane.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use weft_api::{Located, Problem};
use weft_control_plane::ProblemStatus;
use weft_control_plane::model::MeshConfig;
use weft_control_plane::sources::{build, read_folder};

use crate::command::{ValidateArgs, exit};
use crate::output::{self, Colour, paint, plural};

pub(crate) fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    for file in &args.files {
        let (more, wrong) = read(file)?;
        objects.extend(more);
        problems.extend(wrong);
    }
    // As the control plane does: what the objects mean together is looked at only if each is good by itself.
    if !problems.iter().any(Problem::is_error) {
        match build(&objects, &Arc::new(MeshConfig::default()), None) {
            Ok(built) => problems.extend(built.warnings),
            Err(more) => problems.extend(more),
        }
    }
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let documents: Vec<ProblemStatus> = problems.iter().map(Into::into).collect();
    output::document(args.output, &documents, || lines(&problems))?;
    if args.output.is_table() {
        let verdict = match (errors, problems.len()) {
            (0, 0) => "valid".to_owned(),
            (0, warnings) => format!("valid, with {}", plural(warnings, "warning")),
            (errors, _) => format!("not valid: {}", plural(errors, "error")),
        };
        eprintln!("{}: {verdict}", plural(objects.len(), "object"));
    }
    Ok(ExitCode::from(if errors > 0 { exit::BAD_NEWS } else { 0 }))
}

fn read(file: &Path) -> anyhow::Result<(Vec<Located>, Vec<Problem>)> {
    if file.is_dir() {
        return read_folder(file)
            .with_context(|| format!("cannot read the folder {}; name one that this user may read", file.display()));
    }
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input; it must be UTF-8")?;
        ("<standard input>".to_owned(), text)
    } else {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!("cannot read {}; name a YAML file, a folder of them, or `-` for standard input", file.display())
        })?;
        (file.display().to_string(), text)
    };
    let manifest = weft_api::parse(&name, &text);
    Ok((manifest.objects, manifest.problems))
}

fn lines(problems: &[Problem]) -> String {
    let line = |problem: &Problem| {
        let text = problem.to_string();
        let colour = if problem.is_error() { Colour::Red } else { Colour::Yellow };
        // The place stays plain, so that terminals make a link of it.
        match text.split_once(": ") {
            Some((place, rest)) => format!("{place}: {}\n", paint(rest, colour)),
            None => text + "\n",
        }
    };
    problems.iter().map(line).collect()
}
