//! Request heads by number: the same number, the same head.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const SEED: u64 = 0x7765_6674;

/// The head with this number.
pub(crate) fn head(number: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(SEED.wrapping_add(number));
    let mut draft = Draft::valid(&mut rng);
    // A third stay valid, most others are wrong in one place only: there a verdict says most.
    for _ in 0..pick(&mut rng, &[0, 0, 1, 1, 1, 2]) {
        draft.mutate(&mut rng);
    }
    let mut bytes = draft.write();
    if rng.random_ratio(1, 12) {
        mutate_bytes(&mut rng, &mut bytes);
    }
    bytes
}

struct Draft {
    before: &'static str,
    method: Vec<u8>,
    after_method: &'static str,
    target: Vec<u8>,
    after_target: &'static str,
    version: Vec<u8>,
    /// Whole lines without their ends.
    lines: Vec<Vec<u8>>,
    /// Ends of the request line, of each line, and of the head.
    ends: Vec<&'static str>,
}

const METHODS: &[&str] = &["GET", "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
const TARGETS: &[&str] =
    &["/", "/a/b?c=d", "/a//b/../c", "/%2e%2F", "/?", "/a;b=c,d", "http://shop/x", "/very/long/path/indeed"];
const FIELDS: &[&str] = &[
    "Accept: */*",
    "user-agent: x/1 (y; z)",
    "X-Empty:",
    "X-Spaces: \t a  b \t",
    "Cookie: a=b; c=\"d\"",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: keep-alive, x-hop",
    "TE: trailers",
    "X!#$%&'*+-.^`|~9: token",
    "Accept-Encoding: gzip, chunked",
    "x-forwarded-for: 198.18.0.1",
];

impl Draft {
    fn valid(rng: &mut StdRng) -> Self {
        let target = pick(rng, TARGETS).as_bytes().to_vec();
        let mut lines = vec![b"Host: shop".to_vec()];
        for _ in 0..rng.random_range(0..4) {
            lines.push(pick(rng, FIELDS).as_bytes().to_vec());
        }
        match rng.random_range(0..4) {
            0 => lines.push(format!("Content-Length: {}", rng.random_range(0..20)).into_bytes()),
            1 => lines.push(b"Transfer-Encoding: chunked".to_vec()),
            _ => {}
        }
        let len = lines.len();
        lines.swap(0, rng.random_range(0..len));
        Self {
            before: "",
            method: pick(rng, METHODS).as_bytes().to_vec(),
            after_method: " ",
            target,
            after_target: " ",
            version: b"HTTP/1.1".to_vec(),
            ends: vec!["\r\n"; lines.len() + 2],
            lines,
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut out = self.before.as_bytes().to_vec();
        out.extend_from_slice(&self.method);
        out.extend_from_slice(self.after_method.as_bytes());
        out.extend_from_slice(&self.target);
        out.extend_from_slice(self.after_target.as_bytes());
        out.extend_from_slice(&self.version);
        for (line, end) in self.lines.iter().zip(&self.ends) {
            out.extend_from_slice(end.as_bytes());
            out.extend_from_slice(line);
        }
        for end in self.ends.iter().skip(self.lines.len()) {
            out.extend_from_slice(end.as_bytes());
        }
        out
    }

    fn mutate(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..14) {
            0 => self.method = pick(rng, ODD_METHODS).as_bytes().to_vec(),
            1 => self.target = pick(rng, ODD_TARGETS).to_vec(),
            2 => self.version = pick(rng, ODD_VERSIONS).as_bytes().to_vec(),
            3 => match rng.random_range(0..3) {
                0 => self.before = pick(rng, &["\r\n", "\n", "\r", " ", "\t", "\r\n\r\n", "\0"]),
                1 => self.after_method = pick(rng, &["  ", "\t", "", " \t", "\x0b"]),
                _ => self.after_target = pick(rng, &["  ", "\t", "", "\x0c", "\r "]),
            },
            4 => {
                let at = rng.random_range(0..self.ends.len());
                self.ends[at] = pick(rng, &["\n", "\r", "\r\r\n", "\n\r", "\r\n ", " \r\n", "\r\n\t"]);
            }
            5 | 6 => self.add(rng, LENGTHS),
            7 | 8 => self.add(rng, CODINGS),
            9 => {
                self.lines.retain(|line| !line.starts_with(b"Host"));
                self.add(rng, HOSTS);
            }
            10 => self.add(rng, HOSTS),
            11 => self.add(rng, ODD_LINES),
            12 => self.add(rng, MEANINGFUL),
            _ => {
                // HTTP/1.0 and whatever else is there.
                self.version = b"HTTP/1.0".to_vec();
            }
        }
    }

    fn add(&mut self, rng: &mut StdRng, lines: &[&[u8]]) {
        let at = rng.random_range(0..=self.lines.len());
        self.lines.insert(at, pick(rng, lines).to_vec());
        self.ends.insert(at, "\r\n");
    }
}

const ODD_METHODS: &[&str] = &[
    "HEAD", "get", "PROPFIND", "X", "M-SEARCH", "TRACE", "CONNECT", "G@T", "G T", "", "GE\0T", "G\u{e9}T", "_", "GET:",
    "1",
];
const ODD_TARGETS: &[&[u8]] = &[
    b"*",
    b"",
    b"a",
    b"a:80",
    b"http://",
    b"http:///x",
    b"http://other/x",
    b"http://shop:80/x",
    b"http://u:p@shop/x",
    b"https://shop",
    b"http://shop?q",
    b"http://[::1]:80/",
    b"http://shop:x/",
    b"ftp://shop/x",
    b"/a#b",
    b"/#",
    b"/a b",
    b"/a\tb",
    b"/\0",
    b"/\x01",
    b"/\x7f",
    b"/\xff\xfe",
    b"/\xc3\xa9",
    b"/<a>",
    b"/`{}|^\"\\",
    b"//shop/x",
    b"?q",
    b"/%00",
    b"/\rX: y",
    b"shop:443",
    b"[::1]:443",
];
const ODD_VERSIONS: &[&str] = &[
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/1.9",
    "HTTP/2.0",
    "HTTP/0.9",
    "HTTP/3",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/1.1x",
    "HTTP/01.1",
    "HTTP/1",
    "HTTP/1.10",
    "HTTP 1.1",
    "",
    "HTTPS/1.1",
    "HTTP/1,1",
    "HTTP/1.1\0",
];
const LENGTHS: &[&[u8]] = &[
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: 5",
    b"content-length: 6",
    b"Content-Length: 007",
    b"Content-Length: +5",
    b"Content-Length: -5",
    b"Content-Length: 5 5",
    b"Content-Length: 0x5",
    b"Content-Length: 5, 5",
    b"Content-Length: 5, 6",
    b"Content-Length:",
    b"Content-Length: 5;",
    b"Content-Length: 5.0",
    b"Content-Length: \x0b5",
    b"Content-Length: 18446744073709551615",
    b"Content-Length: 18446744073709551616",
    b"Content-Length: 9223372036854775807",
    b"Content-Length: 9223372036854775808",
    b"Content-Length: 99999999999999999999999",
    b"Content-Length : 5",
    b"Content-Length\t: 5",
    b" Content-Length: 5",
    b"Content_Length: 5",
    b"Content-Length\0: 5",
    b"Content-Length: 5\0",
    b"Content-Length: five",
    b"Content-Length: \xb25",
    b"CONTENT-LENGTH:5",
    b"Content-Length: 5,",
];
const CODINGS: &[&[u8]] = &[
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:CHUNKED",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked;a=b",
    b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b" Transfer-Encoding: chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: chunk ed",
    b"Transfer-Encoding: chunked\0",
    b"Transfer-Encoding:\tchunked ",
    b"Transfer-Encoding: cow",
    b"Transfer-Encoding: \xffchunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked chunked",
];
const HOSTS: &[&[u8]] = &[
    b"Host: shop",
    b"hOST:shop:80",
    b"Host: other",
    b"Host:",
    b"Host: a b",
    b"Host: a/b",
    b"Host: u@shop",
    b"Host: shop:x",
    b"Host: ::1",
    b"Host: [::1]:80",
    b"Host: [::1",
    b"Host: shop:",
    b"Host: shop:99999",
    b"Host: \xc3\xa9",
    b"Host: a,b",
    b"Host: a_b",
    b"Host: a\\b",
    b"Host: shop.",
    b"Host: a..b",
    b"Host : shop",
    b"X-No-Host: 1",
    b"X-No-Host: 2",
    b"Host: a?b",
    b"Host: a#b",
    b"Host: %41",
    b"Host: SHOP",
];
const ODD_LINES: &[&[u8]] = &[
    b"X : y",
    b"X\t: y",
    b" X: y",
    b"\tX: y",
    b": y",
    b"X",
    b"X y: z",
    b"X@: y",
    b"X(: y",
    b"X\xff: y",
    b"X\0: y",
    b"X: \0",
    b"X: a\0b",
    b"X: \x01",
    b"X: \x0b",
    b"X: \x7f",
    b"X: \x1b[0m",
    b"X: \xff\xfe",
    b"X: \xc3\xa9",
    b"X: a\rb",
    b"X: a\nb",
    b"X: y\r\n folded",
    b"X: y\r\n\tfolded",
    b"X:\r\n folded",
    b"X:: y",
    b"X:y:z",
    b"\"X\": y",
    b"X/Y: z",
    b"X[0]: y",
    b"X: y\r",
    b"X_Y: z",
    b"-: y",
    b"X: \t\t",
    b"\x7f: y",
    b"X;: y",
];
const MEANINGFUL: &[&[u8]] = &[
    b"Expect: 100-continue",
    b"Expect: 100-Continue",
    b"Expect: other",
    b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Upgrade: h2c",
    b"Connection: upgrade",
    b"Connection: content-length",
    b"Connection: transfer-encoding",
    b"Connection:",
    b"Connection: close, keep-alive",
    b"Connection: , ,",
    b"Trailer: T",
    b"Content-Type: text/plain",
    b"X-HTTP-Method-Override: PUT",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: close",
];

/// Anything at all, anywhere.
fn mutate_bytes(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    const INTERESTING: &[u8] = b"\r\n\t :\0,;\x7f\xff/ \"@#0aA";
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..4) {
        0 => bytes[at] = pick(rng, INTERESTING),
        1 => bytes.insert(at, pick(rng, INTERESTING)),
        2 => {
            bytes.remove(at);
        }
        _ => bytes.truncate(at),
    }
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    *from.choose(rng).expect("there is something to pick")
}
