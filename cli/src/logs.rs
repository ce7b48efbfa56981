//! `weft logs`.

use std::process::ExitCode;

use weft_inject::names;

use crate::command::{LogsArgs, exit};

pub(crate) fn run(args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let mut arguments = vec!["logs".to_owned()];
    match &args.pod {
        Some(pod) => {
            arguments.extend([format!("pod/{}", pod.name), "-c".to_owned(), names::PROXY_CONTAINER.to_owned()]);
            arguments.extend(pod.namespace.iter().flat_map(|namespace| ["-n".to_owned(), namespace.clone()]));
        }
        None => {
            let selector = format!("app.kubernetes.io/name={}", names::CONTROL_PLANE);
            let namespace = args.cluster.weft_namespace().to_owned();
            arguments.extend(["-n".to_owned(), namespace, "-l".to_owned(), selector, "--prefix".to_owned()]);
        }
    }
    arguments.extend(args.follow.then(|| "--follow".to_owned()));
    arguments.extend(args.tail.map(|lines| format!("--tail={lines}")));
    let status = args.cluster.run(&arguments)?;
    Ok(ExitCode::from(if status.success() { 0 } else { exit::UNKNOWN }))
}
