//! A real nginx on a Unix socket.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use weft_proxy::http::{Framing, ResponseHead};
use weft_proxy::http1::{Limits, ResponseDecoder, ResponseTo};

use super::Verdict;
use super::ours::Exchange;

/// A running nginx; it ends when this is dropped.
pub(crate) struct Nginx {
    process: Child,
    socket: PathBuf,
    /// As it calls itself: `nginx/1.22.1`.
    pub(crate) version: String,
    _folder: tempfile::TempDir,
}

/// How long a healthy nginx may take to open its socket.
const START: Duration = Duration::from_secs(10);

impl Nginx {
    /// Starts nginx with its defaults, telling in a field what it read.
    pub(crate) fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let socket = folder.path().join("socket");
        let path = folder.path().display();
        let configuration = format!(
            "daemon off; master_process off; worker_processes 1; pid {path}/pid; error_log /dev/null;
             events {{ worker_connections 512; }}
             http {{
               access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
               fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
               client_max_body_size 0; keepalive_requests 100000000;
               map $request_uri $which {{ /probe probe; default other; }}
               map $http_transfer_encoding $coding {{ \"\" \"\"; default chunked; }}
               map $content_length $length {{ \"~^(?<digits>[0-9]+)$\" $digits; default \"\"; }}
               add_header Seen \"$which|$coding|$length\" always;
               server {{ listen unix:{path}/socket backlog=4096; location / {{ return 200; }} }}
             }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).map_err(|error| error.to_string())?;
        let program = find()?;
        let version = Command::new(&program).arg("-v").output().map_err(|error| error.to_string())?;
        let version = String::from_utf8_lossy(&version.stderr);
        let version = version.rsplit(' ').next().unwrap_or_default().trim().to_owned();
        let process = Command::new(program)
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut nginx = Self { process, socket, version, _folder: folder };
        let deadline = Instant::now() + START;
        while UnixStream::connect(&nginx.socket).is_err() {
            if let Ok(Some(status)) = nginx.process.try_wait() {
                return Err(format!("nginx ended at once with {status}"));
            }
            if Instant::now() > deadline {
                return Err("nginx opened no socket".to_owned());
            }
            std::thread::yield_now();
        }
        Ok(nginx)
    }

    /// nginx's verdict.
    pub(crate) fn verdict(&self, exchange: &Exchange) -> Verdict {
        let mut stream = UnixStream::connect(&self.socket).expect("nginx accepts connections");
        // It may refuse and close before it has read all.
        let _ = stream.write_all(&exchange.bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut output = Vec::new();
        let _ = stream.read_to_end(&mut output);
        understand(exchange, &output)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join("nginx"))
        .find(|file| file.exists())
        .ok_or_else(|| "nginx is not installed (package nginx-light)".to_owned())
}

/// What it said it saw, in its final responses.
fn understand(exchange: &Exchange, mut output: &[u8]) -> Verdict {
    let to = ResponseTo { head: exchange.request.is_head(), ..ResponseTo::default() };
    let mut head = ResponseHead::new();
    let mut first = None;
    while !output.is_empty() {
        if !output.starts_with(b"HTTP/") {
            // HTTP/0.9 has no head.
            return Verdict::Accept(Framing::UntilClose);
        }
        let parsed = ResponseDecoder::new(Limits::default())
            .decode(output, to, &mut head)
            .expect("nginx's responses are well-formed")
            .expect("nginx's responses are complete");
        let body = match parsed.framing {
            Framing::Length(length) => usize::try_from(length).expect("a short body"),
            Framing::None => 0,
            Framing::Chunked | Framing::UntilClose => output.len() - parsed.consumed,
        };
        output = &output[(parsed.consumed + body).min(output.len())..];
        if parsed.interim {
            continue;
        }
        let seen = head.fields.get("seen").unwrap_or_default();
        match first {
            None if head.status() >= 300 => return Verdict::Refuse(head.status()),
            None if !exchange.probed => return Verdict::Accept(framing(seen)),
            None => first = Some(framing(seen)),
            Some(framing) if seen.starts_with(b"probe|") => return Verdict::Accept(framing),
            Some(_) => return Verdict::Desynchronised,
        }
    }
    match first {
        None => Verdict::Incomplete,
        Some(_) => Verdict::Desynchronised,
    }
}

/// From `which|coding|length`. nginx takes no coding but chunked.
fn framing(seen: &[u8]) -> Framing {
    let text = String::from_utf8_lossy(seen);
    let mut parts = text.rsplit('|');
    let length = parts.next().unwrap_or_default();
    let coding = parts.next().unwrap_or_default();
    match length.parse() {
        _ if !coding.is_empty() => Framing::Chunked,
        Ok(0) | Err(_) => Framing::None,
        Ok(length) => Framing::Length(length),
    }
}
