//! What is compared: two proxies in a row with mutual TLS between them, and the application behind.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load;
use crate::process::{Measured, Pid};

/// How long a program may take to serve, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// HTTP between the two proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    Http1,
    Http2,
}

impl Inside {
    pub(super) const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
        }
    }

    /// What the templates call it.
    fn words(self) -> [(&'static str, &'static str); 4] {
        match self {
            Self::Http1 => [
                ("UPSTREAM_PROTOCOL", "http_protocol_options"),
                ("ALPN", "http/1.1"),
                ("HAPROXY_ALPN", "http/1.1"),
                ("CODEC", "HTTP1"),
            ],
            Self::Http2 => [
                ("UPSTREAM_PROTOCOL", "http2_protocol_options"),
                ("ALPN", "h2"),
                ("HAPROXY_ALPN", "h2"),
                ("CODEC", "HTTP2"),
            ],
        }
    }
}

/// A program of which pairs are made.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    path: PathBuf,
    arguments: &'static [&'static str],
    /// The configuration of the client's and of the server's side, and its file's extension.
    templates: [&'static str; 2],
    extension: &'static str,
    /// What it calls itself.
    pub(super) version: String,
}

/// Envoy's own format, which two of the programs read.
const BOOTSTRAPS: [&str; 2] = [include_str!("../../pair/client.yaml"), include_str!("../../pair/server.yaml")];

impl Program {
    pub(super) fn weft(path: &Path) -> Result<Self> {
        Self::new("weft", path, &["-c"], BOOTSTRAPS, "yaml", "--version")
    }

    pub(super) fn envoy(path: &Path) -> Result<Self> {
        // One worker, as the others have; nothing is shared with another Envoy on this machine.
        let arguments = &["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"];
        Self::new("envoy", path, arguments, BOOTSTRAPS, "yaml", "--version")
    }

    pub(super) fn haproxy(path: &Path) -> Result<Self> {
        let templates = [include_str!("../../pair/haproxy-client.cfg"), include_str!("../../pair/haproxy-server.cfg")];
        Self::new("haproxy", path, &["-db", "-q", "-f"], templates, "cfg", "-v")
    }

    fn new(
        name: &'static str,
        path: &Path,
        arguments: &'static [&'static str],
        templates: [&'static str; 2],
        extension: &'static str,
        version: &str,
    ) -> Result<Self> {
        let version = version_of(path, version)?;
        Ok(Self { name, path: path.to_owned(), arguments, templates, extension, version })
    }
}

/// The first line that a program tells about itself.
pub(super) fn version_of(path: &Path, flag: &str) -> Result<String> {
    let output = Command::new(path).arg(flag).output();
    let output = output.with_context(|| format!("starting {}; build or install it first", path.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // Some say where they are, which is nobody's business.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let words: Vec<_> = line.split_whitespace().collect();
    Ok(words.join(" ").replace(&*path.to_string_lossy(), &name))
}

/// A pair that serves.
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) entry: SocketAddr,
    /// Empty for the application itself.
    pub(super) pids: Vec<Pid>,
    processes: Vec<Measured>,
}

impl Pair {
    /// Starts both proxies and waits until they serve what `application` answers.
    pub(super) fn start(program: &Program, inside: Inside, folder: &Path, application: SocketAddr) -> Result<Self> {
        let name = format!("{} {}", program.name, inside.as_str());
        let (entry, between) = (free_address()?, free_address()?);
        let mut processes = Vec::new();
        let mut logs = Vec::new();
        for (side, template) in ["client", "server"].into_iter().zip(program.templates) {
            let admin = free_address()?.port().to_string();
            let mut words = vec![
                ("ENTRY", entry.port().to_string()),
                ("INSIDE", between.port().to_string()),
                ("APPLICATION", application.port().to_string()),
                ("ADMIN", admin),
                ("TLS", folder.join("tls").display().to_string()),
            ];
            words.extend(inside.words().map(|(word, value)| (word, value.to_owned())));
            let file = folder.join(format!("{}-{}-{side}.{}", program.name, inside.as_str(), program.extension));
            fs::write(&file, fill(template, &words))?;
            let log = file.with_extension("log");
            let output = File::create(&log)?;
            let mut command = Command::new(&program.path);
            command.args(program.arguments).arg(&file).stdout(output.try_clone()?).stderr(output);
            processes.push(Measured::spawn(&mut command)?);
            logs.push(log);
        }
        let mut pair = Self { name, entry, pids: processes.iter().map(|process| **process).collect(), processes };
        let said = || {
            let logs = logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default());
            logs.collect::<Vec<_>>().join("\n").trim().to_owned()
        };
        pair.wait().with_context(said)?;
        Ok(pair)
    }

    /// The application, without proxies.
    pub(super) fn direct(entry: SocketAddr) -> Self {
        Self { name: "direct".to_owned(), entry, pids: Vec::new(), processes: Vec::new() }
    }

    pub(super) fn of(peer: &Peer) -> Self {
        Self { name: peer.name.clone(), entry: peer.entry, pids: peer.pids.clone(), processes: Vec::new() }
    }

    /// Until it answers.
    pub(super) fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Err(error) = load::once(self.entry) else { return Ok(()) };
            for process in &mut self.processes {
                process.alive()?;
            }
            if Instant::now() > deadline {
                return Err(error.context(format!("{} does not serve on {}", self.name, self.entry)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Somebody else's pair, which runs already.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    name: String,
    entry: SocketAddr,
    pids: Vec<Pid>,
}

impl FromStr for Peer {
    type Err = String;

    /// `NAME=PORT:PID[,PID…]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not NAME=PORT:PID[,PID...]");
        let (name, rest) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(form)?;
        let (port, pids) = rest.split_once(':').ok_or_else(form)?;
        let pids = pids.split(',').map(|pid| pid.parse().map(Pid)).collect::<Result<_, _>>().map_err(|_| form())?;
        let entry = (Ipv4Addr::LOCALHOST, port.parse().map_err(|_| form())?).into();
        Ok(Self { name: name.to_owned(), entry, pids })
    }
}

/// The application: nginx with one worker.
pub(super) fn application(nginx: &Path, folder: &Path, entry: SocketAddr) -> Result<Measured> {
    let words = [("FOLDER", folder.display().to_string()), ("APPLICATION", entry.port().to_string())];
    let file = folder.join("nginx.conf");
    fs::write(&file, fill(include_str!("../../pair/nginx.conf"), &words))?;
    let mut process = Measured::start(Command::new(nginx).arg("-p").arg(folder).arg("-c").arg(&file))?;
    let deadline = Instant::now() + PATIENCE;
    while load::once(entry).is_err() {
        process.alive()?;
        if Instant::now() > deadline {
            bail!("nginx does not serve on {entry}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}

/// An address of this machine that nobody uses.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn fill(template: &str, words: &[(&str, String)]) -> String {
    words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(&format!("@{word}@"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_given_by_its_entry_and_its_processes() {
        let peer: Peer = "linkerd=4140:12,13".parse().expect("it is one");
        assert_eq!((peer.name.as_str(), peer.entry.port()), ("linkerd", 4140));
        assert_eq!(peer.pids.iter().map(|pid| pid.0).collect::<Vec<_>>(), [12, 13]);
        for wrong in ["linkerd", "linkerd=4140", "=4140:1", "linkerd=x:1", "linkerd=4140:", "linkerd=70000:1"] {
            let problem = wrong.parse::<Peer>().expect_err(wrong);
            assert_eq!(problem, format!("`{wrong}` is not NAME=PORT:PID[,PID...]"));
        }
    }

    #[test]
    fn every_word_of_the_templates_is_filled_in() {
        let words = ["ENTRY", "INSIDE", "APPLICATION", "ADMIN", "TLS"].map(|word| (word, "1".to_owned()));
        for template in BOOTSTRAPS {
            let inside = Inside::Http2.words().map(|(word, value)| (word, value.to_owned()));
            let text = fill(template, &[&words[..], &inside[..]].concat());
            let left: Vec<_> = text.lines().skip(1).filter(|line| line.replace("@type", "").contains('@')).collect();
            assert_eq!(left, [""; 0]);
        }
    }
}
