//! The CNI plugin: the last in a chain, it redirects the pods that the injector asks it to, and passes every other pod through.
//!
//! Specification: CNI 1.1.0, also spoken in 1.0.0, 0.4.0 and 0.3.x. The plugin makes no interface and changes no result.

mod call;
mod decision;
mod record;
mod reply;

use std::io::Read;

use serde_json::Value;
use weft_cni::netns::{self, NetworkNamespace};
use weft_cni::redirect::{self, Redirect};

pub(crate) use call::Environment;

use call::{Attachment, Configuration};
use decision::{Decision, decide};
use record::Records;
use reply::{Code, Failure, NEWEST, pass_on, versions};

/// Does what the runtime asks. True if it was done; `output` gets what belongs on stdout.
pub(crate) fn run(environment: &Environment, input: impl Read, output: &mut String) -> bool {
    let (answer, done) = match serve(environment, input) {
        Ok(result) => (result, true),
        Err((failure, version)) => (Some(failure.to_json(&version)), false),
    };
    if let Some(answer) = answer {
        output.push_str(&answer.to_string());
        output.push('\n');
    }
    done
}

/// The whole of a call: what to print, or an error and the version to say it in.
fn serve(environment: &Environment, input: impl Read) -> Result<Option<Value>, (Failure, String)> {
    // A configuration has some kilobytes; the limit is there for a runtime gone mad.
    const LONGEST: u64 = 16 << 20;
    let mut text = Vec::new();
    let read = input.take(LONGEST).read_to_end(&mut text);
    let command = environment.get("CNI_COMMAND").unwrap_or_default();
    let since = match command {
        "VERSION" => {
            // Answered whatever else is wrong: it is how a runtime finds out what to say.
            let asked = serde_json::from_slice::<Value>(&text).unwrap_or_default();
            return Ok(Some(versions(asked["cniVersion"].as_str())));
        }
        "ADD" | "DEL" => "0.3.0",
        "CHECK" => "0.4.0",
        "GC" | "STATUS" => "1.1.0",
        other => {
            let message = format!("CNI_COMMAND: {other:?} is no command: ADD, DEL, CHECK, GC, STATUS or VERSION");
            return Err((Failure::new(Code::InvalidEnvironment, message), NEWEST.into()));
        }
    };
    read.map_err(|error| {
        let message = format!("cannot read the network's configuration from stdin: {error}");
        (Failure::new(Code::Io, message), NEWEST.into())
    })?;
    let configuration = Configuration::read(&text, command, since)?;
    let version = configuration.version.clone();
    let result = match command {
        "ADD" => add(configuration, environment).map(Some),
        "DEL" => delete(&configuration, environment).map(|()| None),
        "CHECK" => check(&configuration, environment).map(|()| None),
        "GC" => collect(&configuration).map(|()| None),
        // The plugin can serve whenever it can be called: without the agent only injected pods have to wait, and a node must not become
        // unready for that.
        _ => Ok(None),
    };
    result.map_err(|failure| (failure, version))
}

fn add(mut configuration: Configuration, environment: &Environment) -> Result<Value, Failure> {
    let attachment = Attachment::read(environment, true)?;
    let previous = configuration.previous.take().filter(Value::is_object).ok_or_else(|| {
        let message =
            "prevResult is missing: the plugin only works behind another one, in the list `plugins` of a .conflist";
        Failure::new(Code::InvalidConfiguration, message)
    })?;
    if let Decision::Redirect(redirect) = decide(&configuration, &attachment)? {
        let installed = namespace(&attachment, Code::InvalidEnvironment)?.run(|| {
            redirect::install(&redirect)?;
            redirect::installed()
        });
        verify(installed, &redirect)?;
        if let Err(error) = Records::of(&configuration).write(&attachment, &redirect) {
            // The pod is redirected; CHECK will decide anew what it should be.
            eprintln!("cannot note the redirection in {}: {error}", configuration.settings.state_dir.display());
        }
    }
    Ok(pass_on(previous, &configuration.version))
}

/// Takes back what ADD did. Whatever is gone already is no error, and a namespace that cannot be entered takes its rules along.
fn delete(configuration: &Configuration, environment: &Environment) -> Result<(), Failure> {
    let attachment = Attachment::read(environment, false)?;
    let still_attached = Records::of(configuration).remove(&attachment).unwrap_or_else(|error| {
        eprintln!(
            "cannot clear the note of the redirection in {}: {error}",
            configuration.settings.state_dir.display()
        );
        false
    });
    let Some(path) = attachment.netns.filter(|_| !still_attached) else {
        return Ok(());
    };
    match NetworkNamespace::open(&path).and_then(|namespace| namespace.run(redirect::remove)) {
        Ok(Ok(())) | Err(netns::Error::Missing { .. }) => {}
        Ok(Err(error)) => eprintln!("{error}"),
        Err(error) => eprintln!("{error}"),
    }
    Ok(())
}

fn check(configuration: &Configuration, environment: &Environment) -> Result<(), Failure> {
    let attachment = Attachment::read(environment, true)?;
    if configuration.previous.is_none() {
        let message = "prevResult is missing: the runtime passes the result of ADD to CHECK";
        return Err(Failure::new(Code::InvalidConfiguration, message));
    }
    let wanted = match Records::of(configuration).read(&attachment) {
        Some(redirect) => redirect,
        // Added before the plugin was there: what it should be is decided as for ADD.
        None => match decide(configuration, &attachment)? {
            Decision::Redirect(redirect) => *redirect,
            Decision::Leave => return Ok(()),
        },
    };
    verify(namespace(&attachment, Code::ContainerUnknown)?.run(redirect::installed), &wanted)
}

/// Forgets what the runtime no longer has. The rules went with their namespaces.
fn collect(configuration: &Configuration) -> Result<(), Failure> {
    let Some(valid) = &configuration.valid_attachments else {
        let message = "cni.dev/valid-attachments is missing: the runtime lists there what to keep";
        return Err(Failure::new(Code::InvalidConfiguration, message));
    };
    let is_valid = |container: &str, interface: &str| {
        valid.iter().any(|valid| valid.container == container && valid.interface == interface)
    };
    Records::of(configuration).keep(is_valid).map_err(|error| {
        Failure::new(Code::Io, format!("cannot clear up {}: {error}", configuration.settings.state_dir.display()))
    })
}

/// The attachment's namespace; `missing` says whose fault it is if there is none.
fn namespace(attachment: &Attachment, missing: Code) -> Result<NetworkNamespace, Failure> {
    let path = attachment.netns.as_deref().unwrap_or_else(|| "".as_ref());
    NetworkNamespace::open(path).map_err(|error| {
        let code = if matches!(error, netns::Error::Missing { .. }) { missing } else { Code::InvalidEnvironment };
        Failure::new(code, format!("CNI_NETNS: {error}"))
    })
}

/// Compares what is installed with what should be.
fn verify(
    installed: Result<Result<Option<redirect::Installed>, redirect::Error>, netns::Error>,
    wanted: &Redirect,
) -> Result<(), Failure> {
    let installed = installed
        .map_err(|error| Failure::new(Code::Io, error.to_string()))?
        .map_err(|error| Failure::new(Code::Redirection, error.to_string()))?;
    let message = match installed {
        Some(installed) if installed.matches(wanted) => return Ok(()),
        Some(_) => {
            "the pod's redirection is not the one that was installed: somebody changed the table `inet weft` in it; delete the pod"
        }
        None => {
            "the pod is not redirected: the table `inet weft` is missing in it; delete the pod, or let the DaemonSet weft-cni repair it"
        }
    };
    Err(Failure::new(Code::NotRedirected, message))
}
