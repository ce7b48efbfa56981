//! Cases as files.
//!
//! A `.http` file holds requests, each below a title:
//!
//! ```text
//! ### what it is about
//! # differs: why the answers must not be equal
//! # port: 10001
//! # tls: a.test
//! # certificate: client
//! GET /path HTTP/1.1
//! host: x.test
//! x-long: {a*9000}
//!
//! body
//! ```
//! Lines of the head are sent with CR LF, `{a*N}` as N times that letter, `\n` in the body as CR LF. A request of `HTTP/2` is sent by an HTTP/2
//! client, any other as the bytes it is. The comments are optional: the port is 10000 unless given; with `tls` there is a handshake first,
//! for that server name, and with `certificate` one that shows a client's.

use std::fs;
use std::path::Path;

use weft_sandbox::testing::Failure;

/// A start-up file and what is asked of it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bootstrap: String,
    /// Whether the file is JSON; Envoy goes by the file's name.
    pub(crate) extension: &'static str,
    pub(crate) requests: Vec<Request>,
}

/// One request.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) title: String,
    /// Why the two answers are not equal.
    pub(crate) differs: Option<String>,
    pub(crate) port: u16,
    pub(crate) tls: Option<String>,
    pub(crate) certificate: bool,
    /// `GET /path HTTP/1.1`.
    pub(crate) line: String,
    pub(crate) fields: Vec<String>,
    pub(crate) body: String,
}

/// Where the programs listen unless a request says otherwise.
pub(crate) const PORT: u16 = 10_000;

impl Case {
    /// Every case, by name.
    pub(crate) fn all() -> Result<Vec<Self>, Failure> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder())? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "http") {
                names.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }

    /// The case of that name.
    pub(crate) fn read(name: &str) -> Result<Self, Failure> {
        let path = |extension| folder().join(name).with_extension(extension);
        let extension = if path("json").exists() { "json" } else { "yaml" };
        let read = |extension| {
            fs::read_to_string(path(extension))
                .map_err(|error| Failure::Error(format!("{}: {error}", path(extension).display())))
        };
        let requests: Vec<_> = read("http")?.split("### ").skip(1).map(Request::parse).collect();
        assert!(!requests.is_empty(), "{name}: nothing is asked");
        Ok(Self { name: name.to_owned(), bootstrap: read(extension)?, extension, requests })
    }
}

impl Request {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let mut request = Self { title: lines.next().unwrap_or_default().to_owned(), port: PORT, ..Self::default() };
        let mut head = Vec::new();
        for line in lines.by_ref() {
            if let Some((key, value)) = line.strip_prefix("# ").and_then(|comment| comment.split_once(": ")) {
                match key {
                    "differs" => request.differs = Some(value.to_owned()),
                    "port" => request.port = value.parse().unwrap(),
                    "tls" => request.tls = Some(value.to_owned()),
                    "certificate" => request.certificate = true,
                    other => panic!("{}: {other} is no key", request.title),
                }
            } else if line.is_empty() {
                break;
            } else {
                head.push(expand(line));
            }
        }
        assert!(!head.is_empty(), "{}: there is no request line", request.title);
        request.line = head.remove(0);
        request.fields = head;
        request.body = lines.collect::<Vec<_>>().join("\n").trim_end().replace("\\n", "\r\n");
        request
    }

    /// The bytes of a request that is sent as it is.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.line);
        for field in &self.fields {
            text.push_str(field);
            text.push_str("\r\n");
        }
        format!("{text}\r\n{}", self.body).into_bytes()
    }
}

/// `{a*3}` becomes `aaa`.
fn expand(line: &str) -> String {
    let Some((before, rest)) = line.split_once('{') else { return line.to_owned() };
    let Some((inside, after)) = rest.split_once('}') else { return line.to_owned() };
    match inside.split_once('*').and_then(|(letter, times)| Some((letter, times.parse().ok()?))) {
        Some((letter, times)) => format!("{before}{}{after}", letter.repeat(times)),
        None => line.to_owned(),
    }
}

/// Cargo runs tests in their package's folder.
fn folder() -> &'static Path {
    Path::new("tests/envoy/cases")
}
